use super::*;

fn sample() -> Framed<String> {
    Framed { message: "hello".to_owned(), templates: vec![vec![], vec![7; 2048], vec![1]] }
}

#[test]
fn frames_come_back_however_the_bytes_are_cut() {
    let bytes = [sample().encode().unwrap(), sample().encode().unwrap()].concat();
    for step in [1, 2, 3, 5, 1000, bytes.len()] {
        let mut buffer = FrameBuffer::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(step) {
            buffer.push(piece);
            while let Some(framed) = buffer.next::<String>().unwrap() {
                seen.push(framed);
            }
        }
        assert_eq!(seen, [sample(), sample()], "in steps of {step}");
    }
}

#[test]
fn a_frame_is_bounded_in_both_directions() {
    let long = Framed { message: 0, templates: vec![vec![0; 40_000], vec![0; 40_000]] };
    assert!(matches!(long.encode(), Err(FrameError::TooLong(_))));
    let mut buffer = FrameBuffer::default();
    buffer.push(&u32::MAX.to_le_bytes());
    assert!(matches!(buffer.next::<String>(), Err(FrameError::TooLong(_))));
}

#[test]
fn damaged_frames_are_errors_that_name_the_place() {
    let good = sample().encode().unwrap();
    let inside = &good[LENGTH_BYTES..];
    let mut other = inside.to_vec();
    other[0] = 9;
    assert!(matches!(Framed::<String>::decode(&other), Err(FrameError::Version(9))));
    assert!(matches!(Framed::<String>::decode(&[]), Err(FrameError::Truncated("version"))));
    assert!(matches!(
        Framed::<String>::decode(&inside[..5]),
        Err(FrameError::Truncated("message"))
    ));
    let cut = &inside[..inside.len() - 1];
    assert!(matches!(Framed::<String>::decode(cut), Err(FrameError::Truncated("templates"))));
    assert!(matches!(Framed::<u8>::decode(inside), Err(FrameError::Json(_))));
}
