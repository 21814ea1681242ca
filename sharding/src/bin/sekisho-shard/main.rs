//! `sekisho-shard`: splits a file into share folders, reads it back from any `k` of them, and looks
//! after the shares, without network, node or records. The last resort, and therefore small.

mod args;
mod bench;
mod collect;
mod combine;
mod destroy;
mod fault;
mod inspect;
mod man;
mod out;
mod places;
mod refresh;
mod signing;
mod split;
mod units;
mod verify;
mod words;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use args::{Cli, Command};
use fault::{Exit, Failure};
use out::Out;
use places::Ways;
use words::Lang;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let lang = cli.lang.unwrap_or_else(|| Lang::from_env(|name| std::env::var(name).ok()));
    let out = Out::new(lang, cli.json, cli.quiet);
    let exit = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let exit = runtime.block_on(Box::pin(run(&out, &cli)));
            // A folder on a dead mount must not keep this process.
            runtime.shutdown_background();
            exit
        }
        Err(error) => Err(Failure::defect(&error)),
    };
    let exit = exit.unwrap_or_else(|failure| {
        if out.json {
            out.result(&[], &failure.json(&out));
        } else {
            out.error_line(&failure.text(&out));
        }
        failure.exit
    });
    ExitCode::from(exit.code())
}

/// Wrong usage, or a wish for help; in JSON, if that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args().any(|arg| arg == "--json") {
        let message = error.to_string();
        println!(
            "{}",
            json!({"error": {"code": "usage", "message": message.trim_end(), "why": [], "todo": null}})
        );
    } else {
        // That nobody reads it is no fault.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Done }.code())
}

async fn run(out: &Out, cli: &Cli) -> Result<Exit, Failure> {
    let ways = Ways::read(cli.access.as_deref(), cli.timeout)?;
    match &cli.command {
        Command::Split(args) => split::split(out, &ways, args).await,
        Command::Combine(args) => combine::combine(out, &ways, args).await,
        Command::Read(args) => combine::read(out, &ways, args).await,
        Command::Verify(args) => verify::verify(out, &ways, args).await,
        Command::Repair(args) => verify::repair(out, &ways, args).await,
        Command::Refresh(args) => refresh::refresh(out, &ways, args).await,
        Command::Inspect(args) => inspect::inspect(out, args),
        Command::Collect(args) => collect::collect(out, &ways, args).await,
        Command::Unfinished(args) => collect::unfinished(out, &ways, args).await,
        Command::Destroy(args) => destroy::destroy(out, &ways, args).await,
        Command::Bench(args) => bench::bench(out, args),
        Command::Man { verb, dir } => man::man(verb.as_deref(), dir.as_deref()),
    }
}
