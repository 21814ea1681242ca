use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::rooms::{FOR_TESTS_ONLY, Floor, NEVERS, ROOMS, Room, WORKLOAD_KIT, WORKLOADS};
use crate::source::Crate;
use crate::{circles, purity};

/// Which room links which, for building and running (not for tests alone). Folders stand for rooms.
pub type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks everything there is to check about the shape of the tree.
pub fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .context("cargo metadata does not answer: is the manifest of every member readable?")?;
    let root = metadata.workspace_root.as_std_path();
    let folder_of = |manifest: &Path| -> Result<String> {
        let folder = manifest.strip_prefix(root).context("a member outside the repository")?;
        Ok(folder.to_string_lossy().replace('\\', "/"))
    };
    let mut graph = Graph::new();
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let manifest = package.manifest_path.parent().context("a manifest without a folder")?;
        let folder = folder_of(manifest.as_std_path())?;
        let arrows = graph.entry(folder.clone()).or_default();
        let links = package.dependencies.iter();
        let links = links.map(|d| (d.name.as_str(), d.kind == DependencyKind::Development));
        problems.extend(links_for_tests_only(&folder, links));
        for dependency in &package.dependencies {
            if let Some(path) = &dependency.path
                && dependency.kind != DependencyKind::Development
            {
                arrows.insert(folder_of(path.as_std_path())?);
            }
        }
        for target in &package.targets {
            if target.kind.iter().any(|kind| is_code(&kind.to_string())) {
                let code = Crate::read(root, target.src_path.as_std_path())?;
                problems.extend(circles::check(&code).into_iter().map(|circle| circle.said));
                if target.is_lib() {
                    problems.extend(purity::check(&code));
                }
            }
        }
    }
    problems.extend(check(&graph, ROOMS));
    for line in sideways(&graph, ROOMS) {
        println!("arrows: on one floor: {line}");
    }
    problems.sort();
    problems.dedup();
    for problem in &problems {
        eprintln!("arrows: {problem}");
    }
    if !problems.is_empty() {
        bail!("{} arrows point where they must not", problems.len());
    }
    let arrows: usize = graph.values().map(BTreeSet::len).sum();
    println!("arrows: {} rooms, {arrows} arrows, all as they should be", graph.len());
    Ok(())
}

/// What a room links for good though it is meant for tests; each dependency with whether it is for
/// tests alone. Rooms outside are tests.
fn links_for_tests_only<'a>(folder: &str, links: impl Iterator<Item = (&'a str, bool)>) -> Vec<String> {
    let outside = ROOMS.iter().any(|room| room.folder == folder && room.floor == Floor::Outside);
    links
        .filter(|(_, for_tests)| !for_tests && !outside)
        .filter_map(|(link, _)| FOR_TESTS_ONLY.iter().find(|(name, _)| *name == link))
        .map(|(name, why)| format!("{folder} links {name} for good: {why}"))
        .collect()
}

fn is_code(kind: &str) -> bool {
    matches!(kind, "lib" | "bin")
}

/// Everything wrong between crates, as sentences.
pub fn check(graph: &Graph, rooms: &[Room]) -> Vec<String> {
    let mut problems = Vec::new();
    let floor = |folder: &str| rooms.iter().find(|room| room.folder == folder).map(|room| room.floor);
    for (from, arrows) in graph {
        let Some(high) = floor(from) else {
            problems.push(format!(
                "{from} is not in the table of rooms: write an ADR in docs/adr/, then add it to ARCHITECTURE.md and xtask/src/rooms.rs"
            ));
            continue;
        };
        for to in arrows {
            match floor(to) {
                Some(Floor::Outside) => {
                    problems.push(format!("{from} links {to}, which is outside the house: nothing links it"));
                }
                Some(low) if low > high => problems.push(format!(
                    "{from} ({}) links {to} ({}): no arrow runs up a floor",
                    named(high),
                    named(low)
                )),
                // Rooms that are not in the table are reported for themselves.
                _ => {}
            }
        }
    }
    for (froms, tos, why) in NEVERS {
        for from in *froms {
            for to in *tos {
                if let Some(path) = path(graph, from, to) {
                    problems.push(format!("{} never: {why}", path.join(" → ")));
                }
            }
        }
    }
    let workloads = || graph.keys().filter(|room| room.starts_with(WORKLOADS) && *room != WORKLOAD_KIT);
    for from in workloads() {
        for to in workloads().filter(|to| *to != from) {
            if let Some(path) = path(graph, from, to) {
                problems.push(format!("{} never: workloads meet through the broker", path.join(" → ")));
            }
        }
    }
    problems
}

/// Arrows between rooms of one floor: allowed, and worth a look.
fn sideways(graph: &Graph, rooms: &[Room]) -> Vec<String> {
    let floor = |folder: &str| rooms.iter().find(|room| room.folder == folder).map(|room| room.floor);
    let pairs = graph.iter().flat_map(|(from, arrows)| arrows.iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| floor(from).is_some() && floor(from) == floor(to))
        .map(|(from, to)| format!("{from} → {to}"))
        .collect()
}

fn named(floor: Floor) -> String {
    match floor {
        Floor::Nth(n) => format!("floor {n}"),
        Floor::Outside => "outside".to_owned(),
    }
}

/// A shortest way along the arrows, both ends included.
fn path<'a>(graph: &'a Graph, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::from([from]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in graph.get(*way.last()?).into_iter().flatten() {
                if seen.insert(next) {
                    let mut way = way.clone();
                    way.push(next);
                    if next == to {
                        return Some(way);
                    }
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(arrows: &[(&str, &[&str])]) -> Graph {
        let owned = |(from, to): &(&str, &[&str])| {
            (from.to_string(), to.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
        };
        arrows.iter().map(owned).collect()
    }

    fn problems(arrows: &[(&str, &[&str])]) -> Vec<String> {
        check(&graph(arrows), ROOMS)
    }

    #[test]
    fn the_house_as_planned_has_no_problem() {
        let house = graph(&[
            ("model", &[]),
            ("sharding", &["model"]),
            ("certs", &["model"]),
            ("wire", &["model", "certs"]),
            ("store", &["model"]),
            ("gate", &["store", "certs"]),
            ("cli", &["certs", "model"]),
            ("enclave-agent", &["wire", "sharding", "certs"]),
            ("broker", &["gate", "wire"]),
            ("tests", &["broker", "sharding"]),
        ]);
        assert_eq!(check(&house, ROOMS), Vec::<String>::new());
        assert_eq!(sideways(&house, ROOMS), ["sharding → model"]);
    }

    #[test]
    fn an_arrow_up_is_found() {
        let found = problems(&[("certs", &["store"]), ("store", &[])]);
        assert_eq!(found, ["certs (floor 2) links store (floor 3): no arrow runs up a floor"]);
        assert_eq!(problems(&[("certs", &["policy"]), ("policy", &[])]), Vec::<String>::new());
    }

    #[test]
    fn nothing_links_what_is_outside() {
        assert!(problems(&[("broker", &["tests"])])[0].contains("outside"));
        assert!(problems(&[("tests", &["xtask"])])[0].contains("outside"));
    }

    #[test]
    fn a_room_that_is_not_in_the_table_asks_for_an_adr() {
        assert!(problems(&[("helpers", &[])])[0].contains("ADR"));
    }

    #[test]
    fn each_never_is_found_directly_and_through_others() {
        for (froms, tos, why) in NEVERS {
            for from in *froms {
                for to in *tos {
                    let found = problems(&[(from, &[to])]);
                    assert!(found.iter().any(|p| p.contains(why)), "{from} {to}: {found:?}");
                    let found = problems(&[(from, &["audit"]), ("audit", &["model"]), ("model", &[to])]);
                    let way = format!("{from} → audit → model → {to}");
                    assert!(found.iter().any(|p| p.starts_with(&way)), "{from} {to}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_for_tests_is_linked_by_tests_only() {
        let found = |folder, for_tests| links_for_tests_only(folder, [("sharks", for_tests)].into_iter());
        assert!(found("sharding", false)[0].contains("sharding links sharks"));
        assert!(found("sharding", true).is_empty() && found("tests", false).is_empty());
    }

    #[test]
    fn workloads_share_the_kit_and_nothing_else() {
        let apart = [
            ("workloads/clinical", &["workloads/kit"][..]),
            ("workloads/portal", &["workloads/kit"]),
            ("workloads/kit", &["model"]),
        ];
        assert_eq!(problems(&apart), Vec::<String>::new());
        let found = problems(&[("workloads/clinical", &["workloads/portal"]), ("workloads/portal", &[])]);
        assert_eq!(found, ["workloads/clinical → workloads/portal never: workloads meet through the broker"]);
    }
}
