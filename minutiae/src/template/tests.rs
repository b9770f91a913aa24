use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// One view, two minutiae, one extended data block of three bytes.
#[rustfmt::skip]
const GOLDEN_ISO: &[u8] = &[
    b'F', b'M', b'R', 0, b' ', b'2', b'0', 0, 0, 0, 0, 49, 0, 0,
    0x01, 0x2c, 0x01, 0x90, 0, 197, 0, 197, 1, 0,
    0, 0x00, 77, 2,
    0x40, 0x21, 0x00, 0xa4, 0x40, 80,
    0x81, 0x02, 0x01, 0x03, 0xc0, 0,
    0, 7, 0x01, 0x02, 0, 7, 9, 8, 7,
];

#[rustfmt::skip]
const GOLDEN_ANSI: &[u8] = &[
    b'F', b'M', b'R', 0, b' ', b'2', b'0', 0, 0, 51, 0, 0, 0, 0, 0, 0,
    0x01, 0x2c, 0x01, 0x90, 0, 197, 0, 197, 1, 0,
    0, 0x00, 77, 2,
    0x40, 0x21, 0x00, 0xa4, 45, 80,
    0x81, 0x02, 0x01, 0x03, 135, 0,
    0, 7, 0x01, 0x02, 0, 7, 9, 8, 7,
];

fn golden() -> Template {
    let minutiae = vec![
        Minutia { x: 0x21, y: 0xa4, angle: 64, kind: MinutiaKind::Ending, quality: 80 },
        Minutia { x: 0x102, y: 0x103, angle: 192, kind: MinutiaKind::Bifurcation, quality: 0 },
    ];
    let view = View::new(77, minutiae).unwrap();
    let template = Template::new(300, 400, RESOLUTION_500_DPI, vec![view]).unwrap();
    template.with_extension(0x0102, &[9, 8, 7]).unwrap()
}

#[test]
fn written_bytes_stay_what_they_are() {
    assert_eq!(golden().write_iso(), GOLDEN_ISO);
    assert_eq!(golden().write_ansi(), GOLDEN_ANSI);
}

#[test]
fn golden_bytes_read_back() {
    assert_eq!(Template::read(GOLDEN_ISO).unwrap(), golden());
    assert_eq!(Template::read(GOLDEN_ANSI).unwrap(), golden());
    assert_eq!(Format::detect(GOLDEN_ISO), Some(Format::Iso19794_2));
    assert_eq!(Format::detect(GOLDEN_ANSI), Some(Format::Ansi378));
}

/// Records so long that the length of the one could be the start of the other.
#[test]
fn the_longest_records_are_told_apart() {
    let block = |bytes: usize| vec![7u8; bytes];
    for views in [26, 30, 255] {
        let view = |_| {
            let view = View::new(80, vec![]).unwrap();
            let template = Template::new(300, 400, 197, vec![view]).unwrap();
            template.with_extension(1, &block(65_000)).unwrap().views[0].clone()
        };
        let views: Vec<View> = (0..views).map(view).collect();
        let template = Template::new(300, 400, 197, views).unwrap();
        for bytes in [template.write_iso(), template.write_ansi()] {
            assert!(Template::read(&bytes).unwrap() == template, "{} bytes", bytes.len());
        }
    }
}

#[test]
fn a_buffer_may_be_longer_than_its_record() {
    for golden_bytes in [GOLDEN_ISO, GOLDEN_ANSI] {
        let mut buffer = golden_bytes.to_vec();
        buffer.resize(2048, 0xee);
        assert_eq!(Template::read(&buffer).unwrap(), golden());
        let format = Format::detect(&buffer).unwrap();
        assert_eq!(format.declared_length(&buffer), Some(golden_bytes.len()));
    }
}

#[test]
fn errors_name_the_field() {
    let changed = |offset: usize, value: u8| {
        let mut bytes = GOLDEN_ISO.to_vec();
        bytes[offset] = value;
        Template::read_iso(&bytes).unwrap_err().to_string()
    };
    assert!(changed(0, b'X').contains("magic"));
    assert_eq!(changed(11, 200), "total length at byte 8 is 200, which can't be");
    assert_eq!(changed(11, 48), "extended data at byte 42 reaches past the end");
    assert_eq!(changed(22, 2), "finger position at byte 49 reaches past the end");
    assert_eq!(changed(27, 99), "minutiae at byte 28 reaches past the end");
    assert_eq!(changed(41, 6), "extended data block at byte 46 reaches past the end");
    assert_eq!(changed(45, 3), "extended data block length at byte 44 is 3, which can't be");
    assert_eq!(changed(22, 0), "25 bytes left over behind the last view at byte 24");
}

#[test]
fn every_truncation_is_an_error() {
    for golden_bytes in [GOLDEN_ISO, GOLDEN_ANSI] {
        for length in 0..golden_bytes.len() {
            assert!(Template::read(&golden_bytes[..length]).is_err(), "{length}");
        }
    }
}

#[test]
fn formats_are_told_apart_by_their_length_field() {
    let head = |length: [u8; 4]| [b"FMR\0 20\0".as_slice(), &length, &[0; 4]].concat();
    for (length, format) in [
        ([0, 26, 0, 0], Format::Ansi378),
        ([0xff, 0xff, 0, 0], Format::Ansi378),
        ([0, 25, 0, 0], Format::Iso19794_2),
        ([0, 1, 0, 0], Format::Iso19794_2),
        ([0, 0, 0, 24], Format::Iso19794_2),
        ([0, 0, 0, 23], Format::Ansi378),
    ] {
        assert_eq!(Format::detect(&head(length)), Some(format), "{length:?}");
    }
    assert_eq!(Format::detect(b"FMR\0 20\0"), None);
    assert_eq!(Format::detect(b""), None);
}

#[test]
fn a_proprietary_template_is_recognised_and_not_read() {
    let mut opaque = vec![0x4a, 0x10];
    opaque.extend_from_slice(b"SS21\0\0");
    opaque.extend_from_slice(&1156u16.to_be_bytes());
    opaque.resize(1156, 0x5a);
    assert_eq!(Format::detect(&opaque), Some(Format::ZkFinger10));
    assert_eq!(Format::ZkFinger10.declared_length(&opaque), Some(1156));
    assert_eq!(Template::read(&opaque), Err(FormatError::Opaque));
    assert_eq!(Format::detect(&opaque[..1155]), None, "it declares more than is there");
}

#[test]
fn every_ansi_angle_survives() {
    for angle in 0..180u8 {
        let mut bytes = GOLDEN_ANSI.to_vec();
        bytes[34] = angle;
        assert_eq!(Template::read_ansi(&bytes).unwrap().write_ansi(), bytes);
    }
}

#[test]
fn a_record_too_long_for_ansi_s_short_length_uses_the_long_one() {
    let minutia = Minutia { x: 1, y: 2, angle: 0, kind: MinutiaKind::Other, quality: 0 };
    let view = View::new(0, vec![minutia; 255]).unwrap();
    let template = Template::new(300, 400, 197, vec![view; 44]).unwrap();
    let bytes = template.write_ansi();
    assert_eq!(bytes[8..10], [0, 0]);
    assert_eq!(Format::detect(&bytes), Some(Format::Ansi378));
    assert_eq!(Template::read(&bytes).unwrap(), template);
    assert_eq!(Template::read(&template.write_iso()).unwrap(), template);
}

#[test]
fn extensions_are_replaced_and_removed_by_type() {
    let marked = golden().with_extension(0x0102, b"new").unwrap();
    assert_eq!(marked.extension(0x0102), Some(b"new".as_slice()));
    assert_eq!(marked.views()[0].extensions().len(), 1);
    let both = marked.with_extension(0x0203, b"other").unwrap();
    assert_eq!(both.without_extension(0x0203), marked);
    assert_eq!(both.without_extension(0x0203).extension(0x0203), None);
    let huge = golden().with_extension(1, &[0; 65_530]);
    assert_eq!(huge, Err(TemplateError::Extension { bytes: 65_541 }));
    let viewless = Template::new(300, 400, 197, vec![]).unwrap();
    assert_eq!(viewless.with_extension(1, b"x"), Err(TemplateError::Extension { bytes: 5 }));
}

#[test]
fn limits_are_checked() {
    let minutia = Minutia { x: 16_384, y: 2, angle: 0, kind: MinutiaKind::Other, quality: 0 };
    let refused = View::new(0, vec![minutia]);
    assert_eq!(refused, Err(TemplateError::Coordinate { index: 0, x: 16_384, y: 2 }));
    let fine = Minutia { x: 1, ..minutia };
    let refused = View::new(0, vec![fine; 256]);
    assert_eq!(refused, Err(TemplateError::TooManyMinutiae { count: 256 }));
    let view = View::new(0, vec![]).unwrap();
    let refused = Template::new(1, 1, 1, vec![view; 256]);
    assert_eq!(refused, Err(TemplateError::TooManyViews { count: 256 }));
}

#[test]
fn debug_shows_no_minutiae() {
    assert_eq!(format!("{:?}", golden()), "Template(300x400, [View(2 minutiae, quality 77)])");
}

prop_compose! {
    fn any_minutia()(x in 0..=MAX_COORDINATE, y in 0..=MAX_COORDINATE, angle: u8,
                     kind in 0..3usize, quality: u8) -> Minutia {
        let kind = [MinutiaKind::Other, MinutiaKind::Ending, MinutiaKind::Bifurcation][kind];
        Minutia { x, y, angle, kind, quality }
    }
}

prop_compose! {
    fn any_view()(quality: u8, position: u8, number in 0..16u8, impression in 0..16u8,
                  minutiae in vec(any_minutia(), 0..40),
                  extensions in vec((any::<u16>(), vec(any::<u8>(), 0..60)), 0..3)) -> View {
        let mut view = View::new(quality, minutiae).unwrap();
        (view.position, view.number, view.impression) = (position, number, impression);
        view.extensions = extensions
            .into_iter()
            .map(|(type_code, data)| Extension { type_code, data })
            .collect();
        view
    }
}

prop_compose! {
    fn any_template()(width: u16, height: u16, across: u16, down: u16, equipment: u16,
                      views in vec(any_view(), 0..5)) -> Template {
        let mut template = Template::new(width, height, across, views).unwrap();
        (template.y_resolution, template.equipment) = (down, equipment);
        template
    }
}

proptest! {
    #[test]
    fn iso_reads_what_it_wrote(template in any_template()) {
        let bytes = template.write_iso();
        prop_assert_eq!(Format::detect(&bytes), Some(Format::Iso19794_2));
        prop_assert_eq!(Template::read(&bytes).unwrap(), template);
    }

    #[test]
    fn ansi_reads_what_it_wrote_but_for_the_finer_angles(template in any_template()) {
        let bytes = template.write_ansi();
        let read = Template::read_ansi(&bytes).unwrap();
        prop_assert_eq!(read.write_ansi(), bytes);
        let pairs = read.views.iter().flat_map(View::minutiae)
            .zip(template.views.iter().flat_map(View::minutiae));
        for (read, written) in pairs {
            let off = read.angle.wrapping_sub(written.angle) as i8;
            prop_assert!(off.abs() <= 1, "{} for {}", read.angle, written.angle);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Template::read(&bytes);
        let _ = Format::detect(&bytes).map(|f| f.declared_length(&bytes));
        let _ = Template::read_iso(&[b"FMR\0 20\0".as_slice(), &bytes].concat());
        let _ = Template::read_ansi(&[b"FMR\0 20\0".as_slice(), &bytes].concat());
    }

    #[test]
    fn mutated_records_are_read_or_refused(
        template in any_template(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for mut bytes in [template.write_iso(), template.write_ansi()] {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Ok(read) = Template::read(&bytes) {
                // What is accepted is consistent: it can be written and prepared.
                prop_assert!(read.write_iso().len() <= bytes.len() + 4);
                let _ = crate::Prepared::new(&read);
            }
            let _ = Template::read(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn comparing_odd_templates_never_fails(a in any_template(), b in any_template()) {
        let (a, b) = (crate::Prepared::new(&a), crate::Prepared::new(&b));
        let _ = crate::compare(&a, &b);
    }
}
