use model::SeededEntropy;
use proptest::prelude::*;

use super::*;
use crate::codec::{RandomStream, ShareIndex, Threshold};

const MODES: [Mode; 2] = [Mode::Shamir, Mode::Compact];

fn deposit(mode: Mode) -> Deposit {
    Deposit {
        object: "obj:genome-1".parse().unwrap(),
        set: SetId([7; 16]),
        epoch: 1,
        scheme: Scheme { mode, threshold: Threshold::new(3, 5).unwrap() },
    }
}

fn x(x: u8) -> ShareIndex {
    ShareIndex::new(x).unwrap()
}

fn key_shares(deposit: &Deposit) -> (MasterKey, Vec<KeyShare>) {
    let master = MasterKey::random(&SeededEntropy::new(3)).unwrap();
    let shares = master.split(deposit.scheme.threshold, &mut RandomStream::under(&[5; 32])).unwrap();
    (master, shares)
}

fn header(kind: Kind) -> Header {
    Header { deposit: deposit(Mode::Shamir), share: x(4), kind }
}

fn manifest(size: u64) -> Manifest {
    let entry = |i| ExtentEntry { attempt: AttemptId([i as u8 + 100; 16]), digest: [i as u8; 32] };
    Manifest {
        deposit: deposit(Mode::Shamir),
        size,
        commitments: (0..5).map(|i| [i; 32]).collect(),
        extents: (0..extent_count(size)).map(entry).collect(),
        signature: None,
    }
}

const ATTEMPT: AttemptId = AttemptId([9; 16]);

#[test]
fn a_header_is_4096_bytes_and_says_what_was_written() {
    for mode in MODES {
        for kind in [
            Kind::Extent { extent: 0, len: 1, attempt: ATTEMPT },
            Kind::Extent { extent: 9, len: EXTENT, attempt: ATTEMPT },
            Kind::Manifest { len: 400 },
            Kind::Key,
        ] {
            let header = Header { deposit: deposit(mode), share: x(4), kind };
            let bytes = header.encode();
            assert_eq!(bytes.len(), HEADER);
            assert_eq!(Header::parse(&bytes).unwrap(), header);
        }
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
    let bytes = header(Kind::Extent { extent: 2, len: 77, attempt: ATTEMPT }).encode();
    assert_eq!(&bytes[..24], b"SEKISHRD\x02\x01\x01\x1b\x02\x01\x03\x05\x04\0\0\0\0\0\0\0");
    assert_eq!(bytes[24..32], 1u64.to_le_bytes());
    assert_eq!(bytes[32..40], 65_536u64.to_le_bytes());
    assert_eq!(bytes[40..48], (4u64 << 20).to_le_bytes());
    assert_eq!(bytes[48..56], 2u64.to_le_bytes());
    assert_eq!(bytes[56..64], 77u64.to_le_bytes());
    assert_eq!(bytes[64..80], [7; 16]);
    assert_eq!(bytes[80..96], [9; 16]);
    assert_eq!(&bytes[96..109], b"\x0cobj:genome-1");
    assert!(bytes[168..4064].iter().all(|&byte| byte == 0));
    let compact = Header { deposit: deposit(Mode::Compact), share: x(1), kind: Kind::Key }.encode();
    assert_eq!(compact[9..17], [3, 2, 0x1b, 3, 1, 3, 5, 1]);
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
    assert_eq!(with(8, 1), HeaderError::Version(1));
    assert_eq!(with(16, 5), HeaderError::Checksum);
}

#[test]
fn a_manifest_says_what_was_written_and_where() {
    for size in [0, 1, EXTENT, EXTENT + 1, 3 * EXTENT] {
        let manifest = manifest(size);
        let bytes = manifest.encode();
        assert_eq!(bytes.len() as u64, 176 + 32 * 5 + 48 * extent_count(size) + 64);
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        assert_eq!(bytes[40..48], size.to_le_bytes());
    }
    let bytes = manifest(1).encode();
    assert_eq!(&bytes[..16], b"SEKIMANI\x02\x01\x1b\x02\x01\x03\x05\0");
    assert_eq!(bytes[56..72], [7; 16]);
    assert_eq!(&bytes[72..85], b"\x0cobj:genome-1");
    assert_eq!(bytes[144..208], [0; 64]);
    assert_eq!(bytes[208..240], [1; 32]);
    assert_eq!(bytes[336..352], [100; 16]);
    assert_eq!(bytes[352..384], [0; 32]);
}

#[test]
fn the_root_is_that_of_the_description() {
    let hash = |context: &str, parts: &[&[u8]]| blake3::derive_key(context, &parts.concat());
    let leaf = |i: u8| {
        let (attempt, digest) = ([i + 100; 16], [i; 32]);
        hash("sekisho sharding v2 extent", &[&u64::from(i).to_le_bytes(), &attempt, &digest])
    };
    let node = |left: [u8; 32], right: [u8; 32]| hash("sekisho sharding v2 extents", &[&left, &right]);
    let trees = [
        (0, hash("sekisho sharding v2 extents", &[])),
        (1, leaf(0)),
        (2, node(leaf(0), leaf(1))),
        (3, node(node(leaf(0), leaf(1)), leaf(2))),
        (5, node(node(node(leaf(0), leaf(1)), node(leaf(2), leaf(3))), leaf(4))),
    ];
    for (extents, tree) in trees {
        let manifest = manifest(extents * EXTENT);
        let head = &manifest.encode()[..176 + 5 * 32];
        assert_eq!(manifest.root().0, hash("sekisho sharding v2 manifest root", &[head, &tree]), "{extents}");
    }
}

#[test]
fn a_signature_says_who_and_no_bit_of_it_may_change() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let mut signed = manifest(EXTENT + 1);
    let unsigned = signed.root();
    signed.sign(&key);
    assert_ne!(signed.root(), unsigned, "the root covers who signed");
    let bytes = signed.encode();
    assert_eq!(Manifest::parse(&bytes).unwrap(), signed);
    assert_eq!(bytes[144..176], key.verifying_key().to_bytes());
    let text = [&b"sekisho sharding v2 manifest signature\0"[..], &signed.root().0].concat();
    let signature = ed25519_dalek::Signature::from_slice(&bytes[bytes.len() - 64..]).unwrap();
    assert!(key.verifying_key().verify_strict(&text, &signature).is_ok());
    for at in (144..176).chain(bytes.len() - 64..bytes.len()).chain([60, 180, 340]) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(Manifest::parse(&bytes), Err(ManifestError::Signature), "{at}");
    }
    let mut stripped = bytes.clone();
    stripped[bytes.len() - 64..].fill(0);
    assert_eq!(Manifest::parse(&stripped), Err(ManifestError::Signature));
}

#[test]
fn names_of_files_read_back_and_foreign_ones_are_none() {
    let object: ObjectId = "obj:genome-1".parse().unwrap();
    let root = manifest(1).root();
    let files =
        [File::Extent(SetId([1; 16]), 77, ATTEMPT), File::Key(SetId([2; 16]), 3), File::Manifest(root)];
    for file in files {
        let name = file.name(&object);
        assert_eq!(File::parse(name.strip_prefix("genome-1/").unwrap()), Some(file), "{name}");
    }
    assert_eq!(files[1].name(&object), format!("genome-1/{}/0000000000000003.key", "02".repeat(16)));
    for foreign in ["", "x", "notes.txt", "x.manifest", "a/b", "/", "0/1.key", "README/00000001.key"] {
        assert_eq!(File::parse(foreign), None, "{foreign}");
    }
}

#[test]
fn a_manifest_of_another_length_than_it_says_is_none() {
    let bytes = manifest(EXTENT + 1).encode();
    for cut in [0, 8, 9, 100, 144, 176, bytes.len() - 64, bytes.len() - 1] {
        assert!(Manifest::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    for more in [1, 31, 32, 33, 48] {
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
fn keys_differ_by_object_set_mode_extent_attempt_and_share() {
    let base = deposit(Mode::Shamir);
    let (master, _) = key_shares(&base);
    let mut tags = Vec::new();
    let others = [
        (base.clone(), 0, ATTEMPT),
        (Deposit { object: "obj:genome-2".parse().unwrap(), ..base.clone() }, 0, ATTEMPT),
        (Deposit { set: SetId([8; 16]), ..base.clone() }, 0, ATTEMPT),
        (deposit(Mode::Compact), 0, ATTEMPT),
        (base.clone(), 1, ATTEMPT),
        (base.clone(), 0, AttemptId([8; 16])),
    ];
    for (deposit, extent, attempt) in others {
        let keys = ExtentKeys::derive(&master, &deposit, extent, attempt);
        tags.push(keys.block_tag(0, b"block"));
        tags.push(keys.block_tag(1, b"block"));
        tags.extend(deposit.scheme.threshold.shares().map(|x| keys.share_tag(x, 0, b"block")));
        tags.extend(deposit.scheme.threshold.shares().map(|x| keys.share_tag(x, 1, b"block")));
    }
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count);
}

#[test]
fn tags_are_those_of_the_description() {
    // Computed from the description, with another implementation of AES-GCM.
    use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let mut secret = [0; 32];
    model::Entropy::fill(&SeededEntropy::new(3), &mut secret).unwrap();
    let gcm = |key: &[u8; 32], aad: &[u8], text: &[u8]| {
        let nonce = Nonce::assume_unique_for_key([9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut text.to_vec()).unwrap();
        <[u8; 16]>::try_from(tag.as_ref()).unwrap()
    };
    for (mode, suite) in [(Mode::Shamir, [1, 0x1b, 2, 1, 3, 5]), (Mode::Compact, [2, 0x1b, 3, 1, 3, 5])] {
        let material = |x: u8| {
            [&secret[..], &[7; 16], &[9; 16], &4u64.to_le_bytes(), &suite, &[x], b"obj:genome-1"].concat()
        };
        let block = blake3::derive_key("sekisho sharding v2 key of blocks", &material(0));
        let share = blake3::derive_key("sekisho sharding v2 key of shares", &material(2));
        let master = MasterKey::random(&SeededEntropy::new(3)).unwrap();
        let keys = ExtentKeys::derive(&master, &deposit(mode), 4, ATTEMPT);
        let expected = match mode {
            Mode::Compact => gcm(&block, b"", b"block"),
            Mode::Shamir => {
                let message = [&b"block"[..], &9u64.to_le_bytes()].concat();
                blake3::keyed_hash(&block, &message).as_bytes()[..16].try_into().unwrap()
            }
        };
        assert_eq!(keys.block_tag(9, b"block"), expected);
        assert_eq!(keys.share_tag(x(2), 9, b"block"), gcm(&share, b"block", b""));
    }
}

#[test]
fn a_block_comes_back_from_any_k_shares_with_its_tags() {
    for mode in MODES {
        let deposit = deposit(mode);
        let (master, _) = key_shares(&deposit);
        let keys = ExtentKeys::derive(&master, &deposit, 0, ATTEMPT);
        let encoder = BlockEncoder::new(deposit.scheme);
        for len in [1, 2, 3, 4, 63, 64, 65, 1000, 65_535, 65_536] {
            let plaintext: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
            let mut shares = vec![vec![0; deposit.scheme.share_len(len)]; 5];
            let mut slices: Vec<&mut [u8]> = shares.iter_mut().map(Vec::as_mut_slice).collect();
            let mut tags = Vec::new();
            let mut random = RandomStream::under(&[1; 32]);
            encoder.encode(&keys, 3, &plaintext, &mut random, &mut slices, &mut tags).unwrap();
            assert_eq!(tags.len(), 6);
            assert_eq!(tags[0], keys.block_tag(3, &plaintext));
            for (x, share) in deposit.scheme.threshold.shares().zip(&shares) {
                assert!(keys.share_matches(x, 3, share, &tags[usize::from(x.x())]));
                assert!(!keys.share_matches(x, 4, share, &tags[usize::from(x.x())]));
            }
            for chosen in [[0, 1, 2], [4, 0, 2], [2, 3, 4]] {
                let points: Vec<ShareIndex> = chosen.iter().map(|&at| x(at as u8 + 1)).collect();
                let decoder = BlockDecoder::new(deposit.scheme, &points).unwrap();
                let given: Vec<&[u8]> = chosen.iter().map(|&at| shares[at].as_slice()).collect();
                let mut back = vec![0; len];
                assert!(decoder.decode(&keys, 3, &given, &tags[0], &mut back).unwrap());
                assert_eq!(back, plaintext);
                assert!(!decoder.decode(&keys, 3, &given, &tags[1], &mut back).unwrap());
                let mut wrong = shares[chosen[1]].clone();
                wrong[0] ^= 1;
                let given = [given[0], &wrong, given[2]];
                // In the shortest blocks a piece may be nothing but padding, which harms nobody.
                let taken = decoder.decode(&keys, 3, &given, &tags[0], &mut back).unwrap();
                assert!(!taken || (len < 3 && back == plaintext));
            }
        }
    }
}

#[test]
fn any_k_key_shares_make_the_key_and_every_other_share() {
    let deposit = deposit(Mode::Shamir);
    let threshold = deposit.scheme.threshold;
    let (master, shares) = key_shares(&deposit);
    let tag = |master: &MasterKey| ExtentKeys::derive(master, &deposit, 0, ATTEMPT).block_tag(0, b"x");
    for chosen in [[0, 1, 2], [4, 0, 2], [2, 3, 4]] {
        let chosen: Vec<(ShareIndex, KeyShare)> =
            chosen.iter().map(|&at| (x(at as u8 + 1), shares[at].clone())).collect();
        assert_eq!(tag(&MasterKey::combine(threshold, &chosen).unwrap()), tag(&master));
        assert!(MasterKey::combine(threshold, &chosen[..2]).is_err());
        for wanted in threshold.shares().filter(|wanted| chosen.iter().all(|(x, _)| x != wanted)) {
            let rebuilt = KeyShare::rebuild(threshold, &chosen, wanted).unwrap();
            assert_eq!(rebuilt.0, shares[wanted.place()].0);
        }
    }
}

/// Keys are shared by the same kernels as bytes; whoever reads without us may take any library.
#[test]
fn vsss_rs_makes_the_key_of_our_shares_and_shares_of_which_we_make_it() {
    let deposit = deposit(Mode::Compact);
    let threshold = deposit.scheme.threshold;
    let (master, shares) = key_shares(&deposit);
    let commitment = |share: &KeyShare| share.commitment(&deposit, x(1));
    // Two keys with one commitment are the same.
    let expected = commitment(&KeyShare(master.0));
    let tagged = |at: usize| [&[at as u8 + 1], shares[at].0.as_slice()].concat();
    for chosen in [[0, 1, 2], [4, 0, 2], [2, 3, 4]] {
        let made = vsss_rs::Gf256::combine_bytes(chosen.map(tagged)).unwrap();
        assert_eq!(commitment(&KeyShare(made.try_into().unwrap())), expected, "{chosen:?}");
    }
    use chacha20::rand_core::SeedableRng as _;
    let generator = chacha20::ChaCha20Rng::from_seed([1; 32]);
    let theirs = vsss_rs::Gf256::split_bytes(3, 5, master.0, generator).unwrap();
    let theirs: Vec<(ShareIndex, KeyShare)> =
        theirs[2..].iter().map(|share| (x(share[0]), KeyShare(share[1..].try_into().unwrap()))).collect();
    let made = MasterKey::combine(threshold, &theirs).unwrap();
    assert_eq!(commitment(&KeyShare(made.0)), expected);
}

#[test]
fn a_commitment_is_to_one_share_of_one_set_in_one_epoch() {
    let deposit = deposit(Mode::Shamir);
    let (_, shares) = key_shares(&deposit);
    let commitment = shares[0].commitment(&deposit, x(1));
    let text = [&[7; 16][..], &1u64.to_le_bytes(), &[1], &shares[0].0].concat();
    assert_eq!(commitment, blake3::derive_key("sekisho sharding v2 key share commitment", &text));
    assert!(shares[0].bears(&deposit, x(1), &commitment));
    assert!(!shares[1].bears(&deposit, x(1), &commitment) && !shares[0].bears(&deposit, x(2), &commitment));
    let later = Deposit { epoch: 2, ..deposit.clone() };
    let other = Deposit { set: SetId([8; 16]), ..deposit };
    assert!(!shares[0].bears(&later, x(1), &commitment) && !shares[0].bears(&other, x(1), &commitment));
}

#[test]
fn a_key_file_says_what_was_written_and_no_other_length_is_one() {
    let deposit = deposit(Mode::Shamir);
    let share = key_shares(&deposit).1.swap_remove(2);
    let file = KeyFile { share: share.clone(), commitments: vec![[1; 32]; 5] };
    let bytes = file.encode();
    assert_eq!(bytes.len(), KeyFile::len(deposit.scheme.threshold));
    let read = KeyFile::parse(deposit.scheme.threshold, &bytes).unwrap();
    assert_eq!((read.share.0, read.commitments), (share.0, file.commitments));
    for cut in [0, 1, 31, 32, bytes.len() - 32, bytes.len() - 1] {
        assert!(KeyFile::parse(deposit.scheme.threshold, &bytes[..cut]).is_none());
    }
}

#[test]
fn files_are_as_long_as_the_description_says() {
    let [shamir, compact] = MODES.map(|mode| deposit(mode).scheme);
    assert_eq!(shamir.shares_at(0..EXTENT), 4096..4096 + EXTENT);
    assert_eq!(shamir.shares_at(BLOCK..BLOCK + 5), 4096 + BLOCK..4096 + BLOCK + 5);
    assert_eq!(shamir.file_len(BLOCK + 1), 4096 + BLOCK + 1 + 2 * 6 * 16);
    assert_eq!(compact.shares_at(0..BLOCK), 4096..4096 + 21_846);
    assert_eq!(compact.shares_at(BLOCK..BLOCK + 4), 4096 + 21_846..4096 + 21_848);
    assert_eq!(compact.file_len(BLOCK + 4), 4096 + 21_848 + 2 * 6 * 16);
}

#[test]
fn debug_output_shows_no_key() {
    let deposit = deposit(Mode::Compact);
    let (master, shares) = key_shares(&deposit);
    let keys = ExtentKeys::derive(&master, &deposit, 0, ATTEMPT);
    let text = format!("{:?} {master:?} {keys:?}", shares[0]);
    assert!(text.starts_with("KeyShare { .. } MasterKey { .. } ExtentKeys"), "{text}");
    assert!(!text.contains("cipher"), "{text}");
}

#[test]
fn a_root_reads_back_and_nothing_else_does() {
    let root = manifest(1).root();
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
        for mode in MODES {
            let _ = TagTable::parse(deposit(mode).scheme, 0, bytes.len() as u64, &bytes, &[0; 32]);
            let _ = KeyFile::parse(deposit(mode).scheme.threshold, &bytes);
        }
        let _ = File::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn whatever_parses_is_encoded_back_to_the_same_bytes(at in 0usize..4096, value in any::<u8>()) {
        let mut bytes = header(Kind::Extent { extent: 1, len: 5, attempt: ATTEMPT }).encode();
        bytes[at] = value;
        let sum = blake3::derive_key("sekisho sharding v2 header checksum", &bytes[..4064]);
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
