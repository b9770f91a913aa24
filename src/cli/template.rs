//! The command line of `ridgeway template`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    #[command(subcommand)]
    pub(crate) action: TemplateAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateAction {
    /// Extract the minutiae of an image to a template.
    Extract(ExtractArgs),
    /// Compare two prints, each a template or an image.
    Match(MatchArgs),
    /// What a template or an image holds; the steps of extraction as pictures.
    Show(ShowArgs),
    /// Take error rates and times on a folder of files named FINGER_IMPRESSION.ext.
    Evaluate(EvaluateArgs),
    /// Write images of fingers that belong to nobody, named FINGER_IMPRESSION.png.
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ResolutionArgs {
    /// Dots an inch of the images (default: what the file says, else 500).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(200..=1200))]
    pub(crate) dpi: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// PNG, TIFF, BMP, PGM or JPEG: dark ridges on light ground.
    pub(crate) image: PathBuf,
    /// Where the template is written, for its owner only; - is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// ISO/IEC 19794-2:2005 or ANSI 378-2004 (default: ansi for a name in .ansi, else iso).
    #[arg(long)]
    pub(crate) format: Option<OpenFormat>,
    #[command(flatten)]
    pub(crate) resolution: ResolutionArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum OpenFormat {
    /// ISO/IEC 19794-2:2005.
    Iso,
    /// ANSI INCITS 378-2004.
    Ansi,
}

#[derive(Debug, Args)]
pub(crate) struct MatchArgs {
    /// A template or an image.
    pub(crate) a: PathBuf,
    /// The other one.
    pub(crate) b: PathBuf,
    #[command(flatten)]
    pub(crate) resolution: ResolutionArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A template or an image.
    pub(crate) file: PathBuf,
    /// Write a picture of each step of extraction there (of a template: its minutiae).
    #[arg(long, value_name = "DIR")]
    pub(crate) stages: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) resolution: ResolutionArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// The folder: images or templates named FINGER_IMPRESSION.ext, such as 101_1.png.
    pub(crate) dir: PathBuf,
    /// How many impressions are enrolled: three in all choices, the best of their scores counts.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = enrolled)]
    pub(crate) enrol: u8,
    /// Which strangers are compared.
    #[arg(long, value_enum, default_value_t = PairsOf::All)]
    pub(crate) pairs: PairsOf,
    /// Only files with this ending (default: images; templates where there are none).
    #[arg(long, value_name = "EXT")]
    pub(crate) ext: Option<String>,
    /// Where the DET curve is drawn as a PNG (default: DIR-det.png in the current folder).
    #[arg(long, value_name = "FILE", conflicts_with = "no_det")]
    pub(crate) det: Option<PathBuf>,
    /// Draw no DET curve.
    #[arg(long)]
    pub(crate) no_det: bool,
    /// Write the FNMR by the share of prints rejected for their quality as a PNG.
    #[arg(long, value_name = "FILE")]
    pub(crate) rejection: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) resolution: ResolutionArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PairsOf {
    /// The first impressions of every two fingers, as in the FVC competitions.
    Fvc,
    /// All impressions of every two fingers.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The folder; it is made where it isn't there.
    pub(crate) dir: PathBuf,
    /// How many fingers.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) fingers: u32,
    /// How many impressions of each.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) impressions: u32,
    /// The same seed gives the same images.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Number of the first finger: 11 goes on where 1 to 10 ended.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub(crate) first: u32,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn enrolled(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("must be 1 or 3".to_owned()),
    }
}
