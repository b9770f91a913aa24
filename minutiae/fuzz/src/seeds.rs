//! Writes what the fuzzers start from: templates of generated fingers in both formats, whole and with
//! an extended block, and pictures of ridges. `cargo run --bin seeds -- DIR`

use std::{env, error::Error, fs, path::PathBuf};

use minutiae::{extract, merge, synth::Finger};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args().nth(1).ok_or("name a folder")?);
    let (templates, images) = (folder.join("template"), folder.join("image"));
    fs::create_dir_all(&templates)?;
    fs::create_dir_all(&images)?;
    let finger = Finger::new(1);
    let first = extract(&finger.impression(1))?.template;
    let second = extract(&finger.impression(2))?.template;
    let merged = merge(&[&first, &second])?.with_extension(0x0102, b"extended")?;
    for (name, template) in [("single", &first), ("merged", &merged)] {
        fs::write(templates.join(format!("{name}.iso")), template.write_iso())?;
        fs::write(templates.join(format!("{name}.ansi")), template.write_ansi())?;
    }
    // 300 by 400 at 500 dpi, four pixels a byte: a quarter of the print's rows and columns.
    let print = finger.impression(1);
    let every = |step: usize| -> Vec<u8> {
        let rows = print.pixels().chunks(print.width() as usize).step_by(step);
        rows.flat_map(|row| row.iter().copied().step_by(step)).collect()
    };
    let head = |cell: u8| [126, 176, 70, cell - 1, 0];
    fs::write(images.join("print"), [&head(1)[..], &every(1)].concat())?;
    fs::write(images.join("coarse"), [&head(2)[..], &every(2)].concat())?;
    fs::write(images.join("stripes"), [&head(4)[..], &[20, 220].repeat(2_000)].concat())?;
    Ok(())
}
