//! `ridgeway template show`.

use std::{io::Write as _, path::Path};

use anyhow::Context as _;
use minutiae::{ExtractError, Extraction, Format, GrayImage, Minutia, MinutiaKind, Template, View};
use serde::Serialize;

use super::{
    draw::png,
    input::{self, DpiFrom, Input, format_name},
    sha256, stages,
};
use crate::{
    cli::ShowArgs,
    output::{file::Target, print_json},
};

/// What is in a file. Counts only: where minutiae lie is nobody's business but the template's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    file: String,
    kind: &'static str,
    format: String,
    /// Bytes of the file.
    length: usize,
    width: u32,
    height: u32,
    dpi: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpi_from: Option<DpiFrom>,
    /// 0 to 100, of the best view.
    quality: u8,
    minutiae: usize,
    views: Vec<ViewReport>,
    /// Why an image gives no template.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_template: Option<String>,
    /// Of the file.
    sha256: String,
    /// Pictures written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ViewReport {
    number: u8,
    finger: &'static str,
    impression: &'static str,
    quality: u8,
    minutiae: usize,
    endings: usize,
    bifurcations: usize,
    other: usize,
    extended_bytes: usize,
}

pub(super) fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let bytes = input::bytes(&args.file)?;
    let input = input::parse(&args.file, &bytes, args.resolution.dpi)?;
    let mut report = match &input {
        Input::Template { format, template } => of_template(*format, template),
        Input::Image { format, image, dpi_from } => {
            of_image(&format_name(*format), image, *dpi_from, minutiae::extract(image))
        }
    };
    report.file = args.file.display().to_string();
    report.length = bytes.len();
    report.sha256 = sha256(&bytes);
    if let Some(dir) = &args.stages {
        report.stages = draw(&args.file, &input, dir)?;
    }
    if args.json { print_json(&report) } else { print(&report) }
}

fn draw(file: &Path, input: &Input, dir: &Path) -> anyhow::Result<Vec<String>> {
    let pictures = match input {
        Input::Template { template, .. } => stages::of_template(template),
        Input::Image { image, dpi_from, .. } => stages::of_image(image)
            .map_err(|error| input::no_template(file, image, *dpi_from, &error))?,
    };
    std::fs::create_dir_all(dir)
        .with_context(|| format!("can't make the folder {}", dir.display()))?;
    let placed = pictures.into_iter().map(|(name, picture)| {
        let path = dir.join(format!("{name}.png"));
        Ok((Target::new(&path, [file])?, picture))
    });
    // Each has a place before the first one is written.
    let placed: Vec<_> = placed.collect::<anyhow::Result<_>>()?;
    let written = placed.into_iter().map(|(target, picture)| {
        target.write(&png::of(&picture)?)?;
        Ok(target.name().display().to_string())
    });
    written.collect()
}

fn of_template(format: Format, template: &Template) -> Report {
    let dpi = (f32::from(template.x_resolution()) * 2.54).round() as u16;
    Report {
        file: String::new(),
        kind: "template",
        format: format.name().to_owned(),
        length: 0,
        width: template.width().into(),
        height: template.height().into(),
        dpi,
        dpi_from: None,
        quality: template.views().iter().map(View::quality).max().unwrap_or(0),
        minutiae: template.minutia_count(),
        views: template.views().iter().map(of_view).collect(),
        no_template: None,
        sha256: String::new(),
        stages: Vec::new(),
    }
}

fn of_image(
    format: &str,
    image: &GrayImage,
    dpi_from: DpiFrom,
    extracted: Result<Extraction, ExtractError>,
) -> Report {
    let (template, failed) = match extracted {
        Ok(extraction) => (Some(extraction.template), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let views: Vec<ViewReport> = template.iter().flat_map(Template::views).map(of_view).collect();
    Report {
        file: String::new(),
        kind: "image",
        format: format.to_owned(),
        length: 0,
        width: image.width(),
        height: image.height(),
        dpi: image.dpi(),
        dpi_from: Some(dpi_from),
        quality: views.first().map_or(0, |view| view.quality),
        minutiae: views.iter().map(|view| view.minutiae).sum(),
        views,
        no_template: failed,
        sha256: String::new(),
        stages: Vec::new(),
    }
}

fn of_view(view: &View) -> ViewReport {
    let count = |kind: MinutiaKind| {
        view.minutiae().iter().filter(|minutia: &&Minutia| minutia.kind == kind).count()
    };
    ViewReport {
        number: view.number(),
        finger: finger_name(view.position()),
        impression: impression_name(view.impression()),
        quality: view.quality(),
        minutiae: view.minutiae().len(),
        endings: count(MinutiaKind::Ending),
        bifurcations: count(MinutiaKind::Bifurcation),
        other: count(MinutiaKind::Other),
        extended_bytes: view.extensions().iter().map(|block| 4 + block.data.len()).sum(),
    }
}

/// ISO/IEC 19794-2, finger position codes.
fn finger_name(position: u8) -> &'static str {
    const NAMES: [&str; 11] = [
        "unknown",
        "right thumb",
        "right index",
        "right middle",
        "right ring",
        "right little",
        "left thumb",
        "left index",
        "left middle",
        "left ring",
        "left little",
    ];
    NAMES.get(usize::from(position)).copied().unwrap_or("undefined")
}

/// ISO/IEC 19794-2, impression type codes.
fn impression_name(impression: u8) -> &'static str {
    match impression {
        0 => "live plain",
        1 => "live rolled",
        2 => "plain",
        3 => "rolled",
        8 => "swipe",
        _ => "undefined",
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut row = |label: &str, value: &str| writeln!(out, "{label:<11} {value}");
    row("file", &report.file)?;
    row("format", &format!("{} {}, {} bytes", report.format, report.kind, report.length))?;
    row("size", &format!("{} x {} pixels", report.width, report.height))?;
    let source = match report.dpi_from {
        Some(DpiFrom::Option) => " (--dpi)",
        Some(DpiFrom::File) => " (the file says so)",
        Some(DpiFrom::Assumed) => " (assumed: the file doesn't say; --dpi sets it)",
        None => "",
    };
    row("resolution", &format!("{} dpi{source}", report.dpi))?;
    row("quality", &format!("{} of 100", report.quality))?;
    for view in &report.views {
        let place = match report.kind {
            "template" => format!("view {}", view.number),
            _ => "minutiae".to_owned(),
        };
        row(&place, &described(view, report.kind))?;
    }
    if let Some(reason) = &report.no_template {
        row("template", &format!("none: {reason}"))?;
    }
    row("sha256", &report.sha256)?;
    for (index, path) in report.stages.iter().enumerate() {
        row(if index == 0 { "stages" } else { "" }, path)?;
    }
    Ok(out.flush()?)
}

fn described(view: &ViewReport, kind: &str) -> String {
    let mut text = String::new();
    if kind == "template" {
        text += &format!(
            "finger {}, {}, quality {}, minutiae ",
            view.finger, view.impression, view.quality
        );
    }
    text +=
        &format!("{}: {} endings, {} bifurcations", view.minutiae, view.endings, view.bifurcations);
    if view.other > 0 {
        text += &format!(", {} of no kind", view.other);
    }
    if view.extended_bytes > 0 {
        text += &format!("; {} bytes of extended data", view.extended_bytes);
    }
    text
}
