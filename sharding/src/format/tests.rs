use model::SeededEntropy;
use proptest::prelude::*;

use super::*;
use crate::codec::{RandomStream, ShareIndex, Splitter};

fn deposit(k: u8, n: u8) -> Deposit {
    Deposit {
        object: "obj:genome-1".parse().unwrap(),
        epoch: 1,
        attempt: AttemptId([7; 16]),
        threshold: Threshold::new(k, n).unwrap(),
    }
}

fn key_shares(deposit: &Deposit) -> (MasterKey, Vec<KeyShare>) {
    let master = MasterKey::random(&SeededEntropy::new(3)).unwrap();
    let shares = master.split(&Splitter::new(deposit.threshold), &mut RandomStream::under(&[5; 32])).unwrap();
    (master, shares)
}

fn header(kind: Kind) -> Header {
    let deposit = deposit(3, 5);
    let key_share = key_shares(&deposit).1.swap_remove(3);
    Header { deposit, share: ShareIndex::new(4).unwrap(), kind, key_share }
}

fn manifest(size: u64) -> Manifest {
    Manifest {
        deposit: deposit(3, 5),
        size,
        commitments: (0..5).map(|i| [i; 32]).collect(),
        extents: (0..extent_count(size)).map(|i| [i as u8; 32]).collect(),
    }
}

#[test]
fn a_header_is_4096_bytes_and_says_what_was_written() {
    for kind in [
        Kind::Extent { extent: 0, len: 1 },
        Kind::Extent { extent: 9, len: EXTENT },
        Kind::Manifest { len: 400 },
    ] {
        let header = header(kind);
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER);
        let read = Header::parse(&bytes).unwrap();
        assert_eq!((read.deposit, read.share, read.kind), (header.deposit, header.share, header.kind));
        assert_eq!(read.key_share.0, header.key_share.0);
    }
}

#[test]
fn the_longest_name_fits() {
    let mut header = header(Kind::Manifest { len: 0 });
    header.deposit.object = ObjectId::from_name(&"x".repeat(63)).unwrap();
    assert_eq!(Header::parse(&header.encode()).unwrap().deposit, header.deposit);
}

#[test]
fn fields_of_the_header_lie_where_the_description_says() {
    let bytes = header(Kind::Extent { extent: 2, len: 77 }).encode();
    assert_eq!(&bytes[..18], b"SEKISHRD\x01\x01\x01\x1b\x01\x01\x01\x03\x05\x04");
    assert_eq!(bytes[24..32], 1u64.to_le_bytes());
    assert_eq!(bytes[32..40], 65_536u64.to_le_bytes());
    assert_eq!(bytes[40..48], (4u64 << 20).to_le_bytes());
    assert_eq!(bytes[48..56], 2u64.to_le_bytes());
    assert_eq!(bytes[56..64], 77u64.to_le_bytes());
    assert_eq!(bytes[64..80], [7; 16]);
    assert_eq!(&bytes[80..93], b"\x0cobj:genome-1");
    assert_ne!(bytes[152..184], [0; 32]);
    assert!(bytes[184..4064].iter().all(|&byte| byte == 0));
}

#[test]
fn what_is_no_header_is_told_why() {
    let bytes = header(Kind::Manifest { len: 1 }).encode();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Header::parse(&bytes).unwrap_err()
    };
    assert_eq!(Header::parse(&bytes[..4095]).unwrap_err(), HeaderError::Short);
    assert_eq!(with(0, b'X'), HeaderError::Magic);
    assert_eq!(with(8, 2), HeaderError::Version(2));
    assert_eq!(with(17, 5), HeaderError::Checksum);
}

#[test]
fn a_manifest_says_what_was_written_and_where() {
    for size in [0, 1, EXTENT, EXTENT + 1, 3 * EXTENT] {
        let manifest = manifest(size);
        let bytes = manifest.encode();
        assert_eq!(bytes.len() as u64, 144 + 32 * (5 + extent_count(size)));
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        assert_eq!(bytes[40..48], size.to_le_bytes());
    }
    let bytes = manifest(1).encode();
    assert_eq!(&bytes[..16], b"SEKIMANI\x01\x01\x1b\x01\x01\x01\x03\x05");
    assert_eq!(bytes[56..72], [7; 16]);
    assert_eq!(&bytes[72..85], b"\x0cobj:genome-1");
    assert_eq!(bytes[144..176], [0; 32]);
    assert_eq!(bytes[176..208], [1; 32]);
}

#[test]
fn a_manifest_of_another_length_than_it_says_is_none() {
    let bytes = manifest(EXTENT + 1).encode();
    for cut in [0, 8, 9, 100, 144, bytes.len() - 32, bytes.len() - 1] {
        assert!(Manifest::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    for more in [1, 31, 32, 33] {
        let longer = [bytes.clone(), vec![0; more]].concat();
        assert_eq!(Manifest::parse(&longer), Err(ManifestError::Length));
    }
    // A size that its extents do not cover, and one that would take terabytes to parse.
    for size in [EXTENT, 3 * EXTENT, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[40..48].copy_from_slice(&size.to_le_bytes());
        assert_eq!(Manifest::parse(&bytes), Err(ManifestError::Field));
        bytes[48..56].copy_from_slice(&size.div_ceil(EXTENT).to_le_bytes());
        assert!(Manifest::parse(&bytes).is_err());
    }
}

#[test]
fn keys_differ_by_object_epoch_attempt_and_share() {
    let base = deposit(3, 5);
    let (master, _) = key_shares(&base);
    let mut tags = Vec::new();
    let others = [
        base.clone(),
        Deposit { object: "obj:genome-2".parse().unwrap(), ..base.clone() },
        Deposit { epoch: 2, ..base.clone() },
        Deposit { attempt: AttemptId([8; 16]), ..base.clone() },
    ];
    for deposit in others {
        let keys = master.attempt_keys(&deposit);
        tags.push(keys.plain_tag(0, b"block"));
        tags.push(keys.plain_tag(1, b"block"));
        tags.extend(deposit.threshold.shares().map(|x| keys.share_tag(x, 0, b"block")));
    }
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count);
}

#[test]
fn tags_are_those_of_the_description() {
    // Computed by hand from the description: BLAKE3 in its key derivation and keyed modes.
    let deposit = deposit(3, 5);
    let master = MasterKey::random(&SeededEntropy::new(3)).unwrap();
    let mut secret = [0; 32];
    model::Entropy::fill(&SeededEntropy::new(3), &mut secret).unwrap();
    let material = |x: u8| [&secret[..], &1u64.to_le_bytes(), &[7; 16], &[3, 5, x], b"obj:genome-1"].concat();
    let plain = blake3::derive_key("sekisho sharding v1 key of plaintext tags", &material(0));
    let share = blake3::derive_key("sekisho sharding v1 key of share tags", &material(2));
    let message = [&b"block"[..], &9u64.to_le_bytes()].concat();
    let keys = master.attempt_keys(&deposit);
    assert_eq!(keys.plain_tag(9, b"block"), blake3::keyed_hash(&plain, &message).as_bytes()[..16]);
    let x = ShareIndex::new(2).unwrap();
    assert_eq!(keys.share_tag(x, 9, b"block"), blake3::keyed_hash(&share, &message).as_bytes()[..16]);
}

#[test]
fn any_k_key_shares_make_the_key() {
    let deposit = deposit(3, 5);
    let (master, shares) = key_shares(&deposit);
    let tag = |master: &MasterKey| master.attempt_keys(&deposit).plain_tag(0, b"x");
    for chosen in [[0, 1, 2], [4, 0, 2], [2, 3, 4]] {
        let chosen: Vec<(ShareIndex, KeyShare)> =
            chosen.iter().map(|&at| (ShareIndex::new(at as u8 + 1).unwrap(), shares[at].clone())).collect();
        assert_eq!(tag(&MasterKey::combine(deposit.threshold, &chosen).unwrap()), tag(&master));
        assert!(MasterKey::combine(deposit.threshold, &chosen[..2]).is_err());
    }
}

#[test]
fn debug_output_shows_no_key() {
    let header = header(Kind::Manifest { len: 0 });
    let text = format!("{header:?} {:?}", key_shares(&header.deposit).0);
    assert!(text.contains("KeyShare { .. }") && text.contains("MasterKey { .. }"), "{text}");
}

#[test]
fn a_root_reads_back_and_nothing_else_does() {
    let root = Root::of(b"x");
    assert_eq!(root.to_string().parse(), Ok(root));
    for bad in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
        assert_eq!(bad.parse::<Root>(), Err(RootError));
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), as_what in 0..3) {
        let mut start = match as_what {
            0 => header(Kind::Manifest { len: 1 }).encode(),
            1 => manifest(EXTENT + 1).encode(),
            _ => Vec::new(),
        };
        let keep = bytes.len().min(start.len());
        start.truncate(keep);
        bytes[..keep].copy_from_slice(&start);
        let _ = Header::parse(&bytes);
        let _ = Manifest::parse(&bytes);
        let _ = TagTable::parse(Threshold::new(3, 5).unwrap(), 0, bytes.len() as u64, &bytes, &[0; 32]);
    }

    #[test]
    fn whatever_parses_is_encoded_back_to_the_same_bytes(at in 0usize..4096, value in any::<u8>()) {
        let mut bytes = header(Kind::Extent { extent: 1, len: 5 }).encode();
        bytes[at] = value;
        let sum = blake3::derive_key("sekisho sharding v1 header checksum", &bytes[..4064]);
        bytes[4064..].copy_from_slice(&sum);
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
        let mut bytes = manifest(EXTENT + 1).encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }
}
