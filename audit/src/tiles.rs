//! The published form of the log, as C2SP tlog-tiles lays it out: `tile/<level>/<n>` with 256
//! hashes, `tile/entries/<n>` with 256 entries, and `….p/<width>` for those at the right edge.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ReadError;
use crate::tree::{Hash, Nodes, WIDTH, reduce};

/// What a file under `tile/` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Entries,
    /// Hashes of complete subtrees of 256^level entries.
    Level(u8),
}

/// Which file under `tile/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tile {
    pub(crate) kind: Kind,
    pub(crate) n: u64,
    /// 1 to 256; below 256 it is a partial one.
    pub(crate) width: u16,
}

impl Tile {
    /// Its path from the folder of the log.
    pub(crate) fn path(self) -> PathBuf {
        let mut path = PathBuf::from("tile");
        match self.kind {
            Kind::Entries => path.push("entries"),
            Kind::Level(level) => path.push(level.to_string()),
        }
        let mut groups = vec![format!("{:03}", self.n % 1000)];
        let mut rest = self.n / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        let mut name = groups.remove(0);
        if self.is_partial() {
            name.push_str(".p");
        }
        path.extend(groups.iter().rev());
        path.push(name);
        if self.is_partial() {
            path.push(self.width.to_string());
        }
        path
    }

    /// The tile whose path (from the folder of the log) this is.
    pub(crate) fn from_path(path: &Path) -> Option<Tile> {
        let mut parts = path.to_str()?.split('/');
        if parts.next()? != "tile" {
            return None;
        }
        let kind = match parts.next()? {
            "entries" => Kind::Entries,
            level => Kind::Level(level.parse().ok()?),
        };
        let (mut n, mut width) = (0_u64, WIDTH as u16);
        for part in parts {
            if let Some(group) = part.strip_prefix('x') {
                n = n.checked_mul(1000)?.checked_add(group.parse().ok()?)?;
            } else if let Some(group) = part.strip_suffix(".p") {
                n = n.checked_mul(1000)?.checked_add(group.parse().ok()?)?;
                width = 0;
            } else if width == 0 {
                width = part.parse().ok()?;
            } else {
                n = n.checked_mul(1000)?.checked_add(part.parse().ok()?)?;
            }
        }
        let tile = Tile { kind, n, width };
        // Only the one way of writing it counts.
        ((1..=WIDTH as u16).contains(&width) && tile.path() == path).then_some(tile)
    }

    pub(crate) fn is_partial(self) -> bool {
        usize::from(self.width) < WIDTH
    }

    /// How many entries the log has at least when this tile exists.
    pub(crate) fn needs(self) -> Option<u64> {
        let hashes = self.n.checked_mul(WIDTH as u64)?.checked_add(u64::from(self.width))?;
        match self.kind {
            Kind::Entries => Some(hashes),
            Kind::Level(level) => hashes.checked_mul(1_u64.checked_shl(8 * u32::from(level))?),
        }
    }

    /// The tile of this kind and number in a log with `size` entries, if it has one.
    pub(crate) fn at(kind: Kind, n: u64, size: u64) -> Option<Tile> {
        let hashes = match kind {
            Kind::Entries => size,
            Kind::Level(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        };
        let width = hashes.saturating_sub(n.checked_mul(WIDTH as u64)?).min(WIDTH as u64) as u16;
        (width > 0).then_some(Tile { kind, n, width })
    }
}

/// The path of a published file, from the folder of the log, as C2SP tlog-tiles writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath(pub(crate) Tile);

impl TilePath {
    /// Reads a path such as `tile/0/x001/234.p/8`; only the one way of writing each counts.
    pub fn parse(path: &str) -> Option<TilePath> {
        Tile::from_path(Path::new(path)).map(TilePath)
    }

    /// How many entries the log has at least when this file exists.
    pub fn needs(self) -> Option<u64> {
        self.0.needs()
    }

    /// Whether it names a bundle of entries, which not everybody may read. Tiles of hashes say
    /// nothing but how many there are.
    pub fn is_entries(self) -> bool {
        self.0.kind == Kind::Entries
    }
}

/// Why bytes are not a bundle of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no sequence of entries with their lengths")]
pub struct BundleFault;

/// Splits a bundle of entries: each is preceded by its length as a big-endian u16.
pub fn parse_bundle(mut bytes: &[u8]) -> Result<Vec<&[u8]>, BundleFault> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(BundleFault)?;
        let (entry, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(BundleFault)?;
        entries.push(entry);
        bytes = rest;
    }
    if entries.len() <= WIDTH { Ok(entries) } else { Err(BundleFault) }
}

/// Adds an entry to the bytes of a bundle. The length fits: entries are refused above it.
pub(crate) fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// Splits the bytes of a tile of hashes.
pub(crate) fn parse_hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() <= WIDTH).then(|| hashes.to_vec())
}

/// Reads a tile. Where the partial one is gone, the beginning of the full one takes its place.
fn read_tile<T>(
    dir: &Path,
    tile: Tile,
    parse: impl Fn(Vec<u8>) -> Option<Vec<T>>,
) -> Result<Vec<T>, ReadError> {
    let mut path = dir.join(tile.path());
    let mut bytes = fs::read(&path);
    if tile.is_partial() && matches!(&bytes, Err(e) if e.kind() == io::ErrorKind::NotFound) {
        let full = dir.join(Tile { width: WIDTH as u16, ..tile }.path());
        if let Ok(found) = fs::read(&full) {
            (path, bytes) = (full, Ok(found));
        }
    }
    let bytes = bytes.map_err(|source| ReadError::Io { path: path.clone(), source })?;
    let mut parts = parse(bytes)
        .filter(|parts| parts.len() >= usize::from(tile.width))
        .ok_or_else(|| ReadError::Damaged { path, what: "it has not the form of a tile".to_owned() })?;
    parts.truncate(usize::from(tile.width));
    Ok(parts)
}

/// Reads the hashes of a tile.
pub(crate) fn read_hashes(dir: &Path, tile: Tile) -> Result<Vec<Hash>, ReadError> {
    read_tile(dir, tile, |bytes| parse_hashes(&bytes))
}

/// Reads the entries of a bundle.
pub(crate) fn read_entries(dir: &Path, tile: Tile) -> Result<Vec<Vec<u8>>, ReadError> {
    read_tile(dir, tile, |bytes| Some(parse_bundle(&bytes).ok()?.into_iter().map(<[u8]>::to_vec).collect()))
}

/// Entries from `from` on, at most `max` and none beyond `size`, out of the bundles in `dir`.
pub(crate) fn read_range(
    dir: &Path,
    from: u64,
    max: usize,
    size: u64,
) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let mut found = Vec::new();
    let mut at = from;
    while at < size && found.len() < max {
        let n = at / WIDTH as u64;
        let Some(tile) = Tile::at(Kind::Entries, n, size) else { break };
        let skip = (at % WIDTH as u64) as usize;
        let room = max - found.len();
        let entries = match read_entries(dir, tile) {
            // What is missing shows when it is asked for first.
            Err(_) if !found.is_empty() => break,
            other => other?,
        };
        for entry in entries.into_iter().skip(skip).take(room) {
            found.push((at, entry));
            at += 1;
        }
    }
    Ok(found)
}

/// The nodes of the tree with `size` leaves, read from tiles, each tile once.
pub(crate) struct TileNodes<'a> {
    dir: &'a Path,
    size: u64,
    seen: RefCell<HashMap<Tile, Vec<Hash>>>,
}

impl<'a> TileNodes<'a> {
    pub(crate) fn new(dir: &'a Path, size: u64) -> TileNodes<'a> {
        TileNodes { dir, size, seen: RefCell::default() }
    }
}

impl Nodes for TileNodes<'_> {
    type Error = ReadError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, ReadError> {
        let (tile_level, inside) = (level / 8, level % 8);
        let start = index << inside;
        let outside = || ReadError::Outside { asked: index << level, size: self.size };
        let kind = Kind::Level(tile_level as u8);
        let tile = Tile::at(kind, start / WIDTH as u64, self.size).ok_or_else(outside)?;
        let mut seen = self.seen.borrow_mut();
        let hashes = match seen.entry(tile) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(read_hashes(self.dir, tile)?),
        };
        let from = (start % WIDTH as u64) as usize;
        Ok(reduce(hashes.get(from..from + (1 << inside)).ok_or_else(outside)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = Tile { kind: Kind::Level(0), n: 1_234_067, width: 256 };
        assert_eq!(tile.path(), Path::new("tile/0/x001/x234/067"));
        let tile = Tile { kind: Kind::Entries, n: 5, width: 8 };
        assert_eq!(tile.path(), Path::new("tile/entries/005.p/8"));
    }

    #[test]
    fn only_canonical_paths_name_a_tile() {
        for bad in [
            "tile/0/5",
            "tile/00/005",
            "tile/0/005.p/256",
            "tile/0/005.p/08",
            "tile/0/005.p",
            "tile/0",
            "x",
            "tile/entries/000.p/0",
        ] {
            assert_eq!(Tile::from_path(Path::new(bad)), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_path_leads_back_to_its_tile(level in proptest::option::of(0_u8..8), n: u32, width in 1_u16..=256) {
            let kind = level.map_or(Kind::Entries, Kind::Level);
            let tile = Tile { kind, n: u64::from(n), width };
            proptest::prop_assert_eq!(Tile::from_path(&tile.path()), Some(tile));
        }

        #[test]
        fn foreign_bundles_and_paths_never_panic(bytes: Vec<u8>, path: String) {
            let _ = parse_bundle(&bytes);
            let _ = Tile::from_path(Path::new(&path));
            if let Some(tile) = Tile::from_path(Path::new(&path)) { let _ = tile.needs(); }
        }

        #[test]
        fn bundles_survive_the_round_trip(entries: Vec<Vec<u8>>) {
            let mut bytes = Vec::new();
            for entry in &entries { push_entry(&mut bytes, entry); }
            proptest::prop_assert_eq!(parse_bundle(&bytes).unwrap(), entries);
        }
    }
}
