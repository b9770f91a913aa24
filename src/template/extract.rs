//! `ridgeway template extract`.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use minutiae::Format;
use serde_json::json;

use super::{
    input::{self, Input},
    sha256,
};
use crate::{
    cli::{ExtractArgs, OpenFormat},
    output::print_json,
};

pub(super) fn run(args: &ExtractArgs) -> anyhow::Result<()> {
    let (image, dpi_from) = match input::read(&args.image, args.resolution.dpi)? {
        Input::Image { image, dpi_from, .. } => (image, dpi_from),
        Input::Template { format, .. } => {
            bail!("{} is a template already ({format})", args.image.display())
        }
    };
    if is_same_file(&args.image, &args.out) {
        bail!("{} is the image: give another name to -o", args.out.display());
    }
    let extraction = input::extracted(&args.image, &image, dpi_from)?;
    let (format, bytes) = match format_of(args) {
        OpenFormat::Iso => (Format::Iso19794_2, extraction.template.write_iso()),
        OpenFormat::Ansi => (Format::Ansi378, extraction.template.write_ansi()),
    };
    write(&args.out, &bytes)?;
    let (minutiae, quality) = (extraction.template.minutia_count(), extraction.quality);
    if args.json {
        return print_json(&json!({
            "file": args.out, "format": format.name(), "length": bytes.len(),
            "minutiae": minutiae, "quality": quality, "sha256": sha256(&bytes),
        }));
    }
    let (file, length) = (args.out.display(), bytes.len());
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{file}: {format}, {length} bytes, {minutiae} minutiae, quality {quality}")?)
}

fn format_of(args: &ExtractArgs) -> OpenFormat {
    let ansi = || args.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("ansi"));
    let by_name = || if ansi() { OpenFormat::Ansi } else { OpenFormat::Iso };
    args.format.unwrap_or_else(by_name)
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// All of it or nothing, in the place of what was there; for its owner only.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    let name = path.file_name().with_context(|| format!("{} is no file name", path.display()))?;
    let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = File::options().write(true).create_new(true).mode(0o600).open(&draft).and_then(
        |mut file| {
            file.write_all(bytes)?;
            fs::rename(&draft, path)
        },
    );
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.with_context(failed)
}
