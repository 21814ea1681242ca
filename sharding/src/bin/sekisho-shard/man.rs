//! The manual pages, made from the command line's own description.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::Cli;
use crate::fault::{Exit, Failure};
use crate::say;

/// Prints a page, or writes all of them into a folder.
pub fn man(verb: Option<&str>, dir: Option<&Path>) -> Result<Exit, Failure> {
    let mut program = Cli::command();
    program.build();
    if let Some(dir) = dir {
        let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
        return written.map(|()| Exit::Done).map_err(|error| cannot(dir, &error));
    }
    let page = match verb {
        None => program,
        Some(verb) => match program.find_subcommand(verb) {
            Some(found) => found.clone(),
            None => return Err(Failure::usage(say!(BadMan, verb = verb))),
        },
    };
    let mut text = Vec::new();
    let made = Man::new(page).render(&mut text);
    // That nobody reads on is no fault of the page.
    made.map(|()| {
        let _ = io::stdout().write_all(&text);
        Exit::Done
    })
    .map_err(|error| cannot(Path::new("-"), &error))
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::failed("output", say!(CannotWrite, path = path.display())).because(error)
}
