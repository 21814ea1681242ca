//! `sekisho`: see `sekisho --help`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use cli::Surroundings;
use cli::args::Cli;
use cli::words::Lang;
use model::ambient::{OsEntropy, SystemClock};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let around = Surroundings {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
        lang: Lang::from_env(|name| std::env::var(name).ok()),
        json: cli.json,
        user_home: std::env::home_dir(),
        program: std::env::current_exe().ok(),
    };
    // One thread: `up` must start children from a thread that lives as long as it does, since the
    // kernel ends them with the thread that started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sekisho: {error}");
            return ExitCode::from(cli::fault::Exit::Unavailable.code());
        }
    };
    match runtime.block_on(Box::pin(cli::run(&around, cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if around.json {
                around.print_json(&fault.json(around.lang));
            } else {
                eprintln!("{}", fault.text(around.lang));
            }
            ExitCode::from(fault.exit.code())
        }
    }
}
