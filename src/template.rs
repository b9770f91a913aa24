//! `ridgeway template`: fingerprint templates in files. What is known about them is the crate
//! `minutiae`'s; here files are read, results printed, and pictures drawn.
//!
//! | module | job |
//! |---|---|
//! | `input` | a file to a template or an image |
//! | `resolution` | the dots an inch that an image file claims |
//! | `draw` | a picture, lines and letters on it, as a PNG file |
//! | `stages` | the steps of extraction, drawn |
//! | `det` | the DET curve, drawn |
//! | `rejection` | what quality is worth, drawn |
//! | `evaluate` | a folder to error rates |
//! | `parallel` | the same work on many things, on all cores |

mod compare;
mod det;
mod draw;
mod evaluate;
mod extract;
mod generate;
mod input;
mod parallel;
mod rejection;
mod resolution;
mod show;
mod stages;

use crate::{
    cli::{TemplateAction, TemplateArgs},
    output::reader_may_leave,
};

pub(crate) fn run(args: TemplateArgs) -> anyhow::Result<()> {
    let ended = match args.action {
        TemplateAction::Extract(args) => extract::run(&args),
        TemplateAction::Match(args) => compare::run(&args),
        TemplateAction::Show(args) => show::run(&args),
        TemplateAction::Evaluate(args) => evaluate::run(&args),
        TemplateAction::Generate(args) => generate::run(&args),
    };
    reader_may_leave(ended)
}

/// SHA-256 as interfaces show it: 64 lower-case hex digits.
fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}
