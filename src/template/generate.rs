//! `ridgeway template generate`.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use minutiae::synth::Finger;
use serde_json::json;

use super::{draw, parallel};
use crate::{
    cli::GenerateArgs,
    output::{counted, file, print_json, progress},
};

pub(super) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let dir = args.dir.display();
    fs::create_dir_all(&args.dir).with_context(|| format!("can't make the folder {dir}"))?;
    let fingers: Vec<u32> = (args.first..=args.first + (args.fingers - 1)).collect();
    refuse_to_overwrite(args, &fingers)?;
    let images = u64::from(args.fingers) * u64::from(args.impressions);
    let bar = progress::bar("images", images);
    parallel::map(&fingers, &progress::hidden(), |&finger| {
        let ridges = Finger::named(&name_of(args.seed, finger));
        for impression in 1..=args.impressions {
            let picture = draw::png::of_print(&ridges.impression(impression.into()))?;
            file::write_new(&path(args, finger, impression), &picture)?;
            bar.inc(1);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if args.json {
        let (fingers, seed, first) = (args.fingers, args.seed, args.first);
        return print_json(&json!({
            "dir": args.dir, "images": images, "fingers": fingers,
            "impressions": args.impressions, "seed": seed, "first": first,
        }));
    }
    let last = args.first + (args.fingers - 1);
    let mut out = std::io::stdout().lock();
    let fingers = match args.fingers {
        1 => format!("finger {last}"),
        _ => format!("fingers {} to {last}", args.first),
    };
    let (images, seed) = (counted(images, "image"), args.seed);
    let each = counted(args.impressions.into(), "impression");
    Ok(writeln!(out, "{images} in {dir}: {fingers}, {each} each, seed {seed}")?)
}

/// What a finger's ridges come from: its number among those of a seed, however many are made.
fn name_of(seed: u64, finger: u32) -> String {
    format!("generated/{seed}/{finger}")
}

fn path(args: &GenerateArgs, finger: u32, impression: u32) -> PathBuf {
    args.dir.join(format!("{finger}_{impression}.png"))
}

/// What is there may be somebody's set.
fn refuse_to_overwrite(args: &GenerateArgs, fingers: &[u32]) -> anyhow::Result<()> {
    let paths = fingers
        .iter()
        .flat_map(|&finger| (1..=args.impressions).map(move |i| path(args, finger, i)));
    for path in paths {
        if path.symlink_metadata().is_ok() {
            bail!("{} is there already: give an empty folder, or another --first", path.display());
        }
    }
    Ok(())
}
