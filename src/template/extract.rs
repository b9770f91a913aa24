//! `ridgeway template extract`.

use std::io::{self, Write as _};

use anyhow::bail;
use minutiae::Format;
use serde_json::json;

use super::{
    input::{self, DpiFrom, Input},
    sha256,
};
use crate::{
    cli::{ExtractArgs, OpenFormat},
    output::file::Target,
};

/// As a name: standard output.
const STDOUT: &str = "-";

pub(super) fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    let (image, dpi_from) = match input::read(&args.image, args.resolution.dpi)? {
        Input::Image { image, dpi_from, .. } => (image, dpi_from),
        Input::Template { format, .. } => {
            bail!("{} is a template already ({format})", args.image.display())
        }
    };
    let target = match args.out.as_os_str() == STDOUT {
        true => None,
        false => Some(Target::new(&args.out, [args.image.as_path()])?),
    };
    let extraction = input::extracted(&args.image, &image, dpi_from)?;
    let (format, bytes) = match format_of(args) {
        OpenFormat::Iso => (Format::Iso19794_2, extraction.template.write_iso()),
        OpenFormat::Ansi => (Format::Ansi378, extraction.template.write_ansi()),
    };
    let mut out = io::stdout().lock();
    // Where the template takes standard output, what is told of it goes elsewhere.
    let mut told: Box<dyn io::Write> = match &target {
        Some(target) => {
            target.write(&bytes)?;
            Box::new(out)
        }
        None => {
            out.write_all(&bytes)?;
            out.flush()?;
            Box::new(io::stderr().lock())
        }
    };
    let (minutiae, quality) = (extraction.template.minutia_count(), extraction.quality);
    if args.json {
        let report = json!({
            "file": args.out, "format": format.name(), "length": bytes.len(),
            "dpi": image.dpi(), "dpiFrom": dpi_from,
            "minutiae": minutiae, "quality": quality, "sha256": sha256(&bytes),
        });
        return Ok(writeln!(told, "{report}")?);
    }
    let (file, length) = (args.out.display(), bytes.len());
    writeln!(told, "{file}: {format}, {length} bytes, {minutiae} minutiae, quality {quality}")?;
    if dpi_from == DpiFrom::Assumed {
        let (image, dpi) = (args.image.display(), image.dpi());
        writeln!(told, "{dpi} dpi was assumed: {image} doesn't say; --dpi sets it")?;
    }
    Ok(())
}

fn format_of(args: &ExtractArgs) -> OpenFormat {
    let ansi = || args.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ansi"));
    let by_name = || if ansi() { OpenFormat::Ansi } else { OpenFormat::Iso };
    args.format.unwrap_or_else(by_name)
}
