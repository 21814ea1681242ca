//! `samtools` on a BAM behind the mount, in a workspace, against the same on the plain file: what
//! sharing costs who works with the data.
//!
//! The file has real reads, the same ones on many contigs, so that there is enough to seek in.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::command::run;
use tests::measure::{Figure, median, report};
use tests::node::Node;

const BAM: &str = "NA12878.chr22.tiny.bam";
const CONTIGS: usize = 250;
/// Regions asked for in one turn, each by a `samtools` of its own.
const REGIONS: usize = 25;
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    // `cargo test --benches` and friends ask for lists; there is nothing to list.
    if std::env::args().any(|arg| arg == "--list" || arg == "--test") {
        return Ok(());
    }
    let dir = std::env::temp_dir().join("sekisho-bench-mount");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let bam = dir.join("wide.bam");
    widen(&tests::data().join(BAM), &bam)?;
    let index = bam.with_extension("bam.bai");
    let (node, admin) = Node::with_a_study(&dir, "bench", &[&bam, &index])?;
    admin.ssh("bench", "").arg("true").go()?.ok()?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut whole_ours, mut whole_theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let here = |file: &str| regions(file, round);
        let mount = "/data/tiny/wide.bam";
        let mine = admin.ssh("bench", "").arg(here(mount)).go()?.ok()?.text();
        let plain = run("bash").arg("-c").arg(here(&bam.display().to_string())).go()?.ok()?.text();
        let (my_counts, my_time) = told(&mine)?;
        let (counts, time) = told(&plain)?;
        ensure!(my_counts == counts, "another result through the mount: {my_counts} instead of {counts}");
        ours.push(my_time / REGIONS as f64);
        theirs.push(time / REGIONS as f64);
        // Everything, which after the first round lies in the caches of both sides.
        let all = |file: &str| timed(&format!("samtools view -c {file}"));
        let (count, time) = told(&admin.ssh("bench", "").arg(all(mount)).go()?.ok()?.text())?;
        whole_ours.push(time);
        let plain = run("bash").arg("-c").arg(all(&bam.display().to_string())).go()?.ok()?.text();
        let (same, time) = told(&plain)?;
        ensure!(count == same, "another count through the mount: {count} instead of {same}");
        whole_theirs.push(time);
    }
    let peer = "samtools on the plain file";
    report(&[
        Figure::less_is_better("mount/samtools/region", "ms", median(&mut ours), peer, median(&mut theirs)),
        Figure::less_is_better(
            "mount/samtools/whole",
            "ms",
            median(&mut whole_ours),
            peer,
            median(&mut whole_theirs),
        ),
    ])?;
    node.stop()?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// A shell command that counts reads of regions that no earlier round asked for.
fn regions(file: &str, round: usize) -> String {
    let regions = (0..REGIONS).map(|at| {
        let contig = (round * REGIONS + at) * 37 % CONTIGS;
        format!("samtools view -c {file} q{contig}:1000-9000")
    });
    timed(&regions.collect::<Vec<_>>().join("; "))
}

/// The command, followed by the microseconds it took, as told by the shell that runs it.
fn timed(command: &str) -> String {
    format!("t=$(date +%s%N); {command}; echo took $(( ($(date +%s%N) - t) / 1000 ))")
}

/// What was printed, and the milliseconds.
fn told(text: &str) -> Result<(String, f64)> {
    let (counts, took) = text.trim().rsplit_once("took ").context("no time was told")?;
    Ok((counts.to_owned(), took.trim().parse::<f64>()? / 1e3))
}

/// Writes the reads of `from` once per contig, sorted and indexed.
fn widen(from: &Path, to: &Path) -> Result<()> {
    let script = format!(
        r#"set -e -o pipefail
        samtools view '{from}' > '{to}.sam'
        len=$(samtools view -H '{from}' | sed -n 's/^@SQ.*LN:\([0-9]*\).*/\1/p' | head -1)
        {{ for i in $(seq 0 {last}); do printf '@SQ\tSN:q%d\tLN:%d\n' $i $len; done
          for i in $(seq 0 {last}); do
            awk -v OFS='\t' -v c=q$i '$3 != "*" {{ $3 = c; if ($7 != "=") $7 = "*"; NF = 11; print }}' '{to}.sam'
          done; }} | samtools view -b -o '{to}' -
        samtools index '{to}'; rm '{to}.sam'"#,
        from = from.display(),
        to = to.display(),
        last = CONTIGS - 1,
    );
    let status = Command::new("bash").arg("-c").arg(script).status().context("cannot start bash")?;
    ensure!(status.success(), "samtools could not make the file: {status}");
    Ok(())
}
