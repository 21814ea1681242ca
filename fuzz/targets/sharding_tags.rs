//! Tag tables and key files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharding::codec::{ShareIndex, Threshold};
use sharding::format::{EXTENT, KeyFile, Mode, Scheme, TagTable};

fuzz_target!(|data: &[u8]| {
    let [k, n, mode, len @ ..] = data else { return };
    let Some((len, data)) = len.split_at_checked(4) else { return };
    let Ok(threshold) = Threshold::new(*k, *n) else { return };
    let mode = if mode & 1 == 0 { Mode::Shamir } else { Mode::Compact };
    let scheme = Scheme { mode, threshold };
    let len = u64::from(u32::from_le_bytes(len.try_into().expect("four bytes"))) % (EXTENT + 1);
    if let Ok(table) = TagTable::unpinned(scheme, len, data) {
        let digest = table.digest(3, len);
        assert_eq!(TagTable::parse(scheme, 3, len, data, &digest).expect("its own digest"), table);
        assert!(TagTable::parse(scheme, 4, len, data, &digest).is_err());
        let blocks = data.len() / (16 * (threshold.n() + 1));
        assert_eq!(table.block(blocks.saturating_sub(1)).is_some(), blocks > 0);
        assert!(table.block(blocks).is_none());
        assert!(table.share(usize::MAX, ShareIndex::new(32).expect("a share")).is_none());
    }
    if let Some(file) = KeyFile::parse(threshold, data) {
        assert_eq!(file.encode().as_slice(), data);
    }
});
