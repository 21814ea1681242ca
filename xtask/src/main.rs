//! The repository's own tasks: `cargo xtask arrows | deny | ci`.

mod arrows;
mod checks;
mod circles;
mod purity;
mod rooms;
mod source;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask TASK

  arrows             check the floors: who may link whom, what the lower floors may not touch,
                     circles between modules
  deny               check dependencies: licences, bans, sources, advisories (needs cargo-deny)
  ci [--no-tests]    formatting, clippy, arrows, dependencies, then every test; all are run, and
     [--only-tests]  it fails if one fails";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["arrows"] => arrows::run(),
        ["deny"] => checks::deny(),
        ["ci"] => checks::ci(true, true),
        ["ci", "--no-tests"] => checks::ci(true, false),
        ["ci", "--only-tests"] => checks::ci(false, true),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{:?} is no task\n{USAGE}", args.join(" ")),
    }
}
