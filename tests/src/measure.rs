//! Figures, as `make bench` gathers them.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result};

/// One figure of ours beside a peer's, from the same run.
#[derive(Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    peer: &'static str,
    peer_value: f64,
    ratio: f64,
}

impl Figure {
    /// Of a rate.
    pub fn more_is_better(
        name: &str,
        unit: &'static str,
        value: f64,
        peer: &'static str,
        peer_value: f64,
    ) -> Figure {
        Figure { name: name.to_owned(), unit, value, peer, peer_value, ratio: value / peer_value }
    }

    /// Of a time.
    pub fn less_is_better(
        name: &str,
        unit: &'static str,
        value: f64,
        peer: &'static str,
        peer_value: f64,
    ) -> Figure {
        Figure { name: name.to_owned(), unit, value, peer, peer_value, ratio: peer_value / value }
    }
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints figures and appends them to the file that `SEKISHO_BENCH_OUT` names.
pub fn report(figures: &[Figure]) -> Result<()> {
    let file = std::env::var_os("SEKISHO_BENCH_OUT");
    for figure in figures {
        println!(
            "{:<28} {:>10.1} {:<5} {} {:.1} ({:.2}x)",
            figure.name, figure.value, figure.unit, figure.peer, figure.peer_value, figure.ratio
        );
        if let Some(path) = &file {
            let line = serde_json::json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit,
                "peer": figure.peer, "peer_value": figure.peer_value, "ratio": figure.ratio,
            });
            let mut out = OpenOptions::new().create(true).append(true).open(path).context("results")?;
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
