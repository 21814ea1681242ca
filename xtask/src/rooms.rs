//! The table of rooms: ARCHITECTURE.md in a form that can be checked.

/// A crate of the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its folder, relative to the repository's root.
    pub folder: &'static str,
    /// An arrow may lead to the same floor or a lower one. Nothing is above what stands outside,
    /// and nothing may lead there.
    pub floor: Floor,
}

/// How high a room lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Floor {
    /// 1 to 7.
    Nth(u8),
    /// Tests and tasks: they see everything, and nobody sees them.
    Outside,
}

const fn room(folder: &'static str, floor: u8) -> Room {
    Room { folder, floor: Floor::Nth(floor) }
}

/// Every room there is or is planned. A change of this table is an ADR.
pub const ROOMS: &[Room] = &[
    room("model", 1),
    room("sharding", 1),
    room("certs", 2),
    room("policy", 2),
    room("audit", 2),
    room("intake", 2),
    room("recording", 2),
    room("wire", 3),
    room("store", 3),
    room("signer", 3),
    room("witness", 3),
    room("vitals", 3),
    room("gate", 4),
    room("siem", 4),
    room("cli", 4),
    room("enclave-agent", 5),
    room("custody", 5),
    room("desktop", 5),
    room("workloads/kit", 5),
    room("workloads/clinical", 5),
    room("workloads/specimen", 5),
    room("workloads/pipeline", 5),
    room("workloads/reporting", 5),
    room("workloads/datause", 5),
    room("workloads/portal", 5),
    room("workloads/insight", 5),
    room("console", 6),
    room("broker", 7),
    Room { folder: "tests", floor: Floor::Outside },
    Room { folder: "xtask", floor: Floor::Outside },
];

/// Who may never reach whom, however many arrows lie between, and why.
pub const NEVERS: &[(&[&str], &[&str], &str)] = &[
    (
        &["broker", "console", "gate", "cli"],
        &["sharding"],
        "the front door must not be able to reconstruct a genome",
    ),
    (
        &["enclave-agent"],
        &["signer", "store", "console", "gate"],
        "an agent acts on tickets; it neither decides nor signs nor keeps records",
    ),
    (
        &["witness"],
        &["certs", "policy", "store", "signer", "wire", "sharding"],
        "a witness runs at another institution and trusts nothing of the house but checkpoints",
    ),
];

/// Crates from outside that only tests and benchmarks may link, and why.
pub const FOR_TESTS_ONLY: &[(&str, &str)] = &[
    ("sharks", "its shares are biased (RUSTSEC-2024-0398): it is a peer to measure against"),
    ("blahaj", "it is a peer to measure against"),
    ("reed-solomon-simd", "it is a peer to measure against"),
    ("ct-merkle", "it checks our tree in tests"),
    ("proptest", "it tests"),
    ("tempfile", "it tests"),
];

/// Workloads meet through the broker only; this part of the tree is what they share.
pub const WORKLOADS: &str = "workloads/";
/// What every workload may link.
pub const WORKLOAD_KIT: &str = "workloads/kit";

/// Folders and files whose code neither opens files nor knows the time: floors 1 and 2, and the
/// machine of `wire`. Paths are relative to the root; programs (`src/main.rs`, `src/bin`) are not
/// meant, they construct what the libraries are given.
pub const PURE: &[&str] = &[
    "model/src",
    "sharding/src",
    "certs/src",
    "policy/src",
    "audit/src",
    "intake/src",
    "recording/src",
    "wire/src/frame",
    "wire/src/machine",
    "wire/src/message",
];

/// Where the pure part of the tree may open files all the same, and why.
pub const MAY_OPEN_FILES: &[(&str, &str)] =
    &[("audit/src", "the log lies in files"), ("sharding/src/vault", "the vault does the I/O of its room")];

/// The one place where wall time and randomness enter.
pub const AMBIENT: &str = "model/src/ambient.rs";
