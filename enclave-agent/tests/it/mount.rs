//! Datasets, read from inside a workspace while their shares lie on three backends.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enclave_agent::init_protocol::End;
use enclave_agent::mount::{DataMount, ReadFailure, Watch};
use enclave_agent::workspace::Limits;
use model::SessionId;
use sharding::vault::Fault;

use crate::bench::{Bench, Running, Shares, giab, owner};

#[derive(Default)]
struct Heard {
    faults: Mutex<Vec<(Option<SessionId>, Fault)>>,
    failures: Mutex<Vec<(Option<SessionId>, ReadFailure)>>,
}

impl Watch for Heard {
    fn fault(&self, session: Option<SessionId>, fault: Fault) {
        self.faults.lock().unwrap().push((session, fault));
    }

    fn read_failed(&self, session: Option<SessionId>, failure: ReadFailure) {
        self.failures.lock().unwrap().push((session, failure));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_tools_read_datasets_and_lose_them_with_the_session() {
    let bench = Bench::new(Limits::default());
    let shares = Shares::new(&bench);
    let bam = std::fs::read(giab("NA12878.chr22.tiny.bam")).unwrap();
    let bai = std::fs::read(giab("NA12878.chr22.tiny.bam.bai")).unwrap();
    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let na12878 = shares
        .deposit("na12878", &[("reads.bam", bam), ("reads.bam.bai", bai), ("large.bin", large.clone())])
        .await;
    let other = shares.deposit("other", &[("secret.txt", b"secret".to_vec())]).await;

    let id = bench.id();
    let data = bench.place.make_data_dir(&id).unwrap();
    let heard = Arc::new(Heard::default());
    let mount = DataMount::open(&data, &shares.storage, 8 << 20, heard.clone()).unwrap();
    let watcher = bench.watcher(&id);
    let started = bench.place.start(&id, &owner("brca", "alice"), &bench.place.limits, &data, &watcher).await;
    let alice = Running(Arc::new(started.unwrap()));
    assert_eq!(alice.sh("ls -A /data").await.out, "");

    let first = SessionId::from_name("s1").unwrap();
    let lease = mount.grant(&first, std::slice::from_ref(&na12878));
    assert_eq!(alice.sh("ls /data /data/na12878").await.out.split_whitespace().count(), 6);
    let bam_path = giab("NA12878.chr22.tiny.bam");
    let outside = std::process::Command::new("samtools").arg("view").arg(&bam_path).output().unwrap();
    let inside = alice.sh("samtools view /data/na12878/reads.bam").await;
    assert_eq!(inside.out.as_bytes(), outside.stdout, "{}", inside.err);
    let part = alice.sh("samtools view -c /data/na12878/reads.bam q:1000-2000").await;
    let outside = std::process::Command::new("samtools")
        .args(["view", "-c"])
        .arg(&bam_path)
        .arg("q:1000-2000")
        .output();
    assert_eq!(part.out.as_bytes(), outside.unwrap().stdout, "{}", part.err);
    let began = Instant::now();
    let sum = alice.sh("b2sum < /data/na12878/large.bin; tail -c 100 /data/na12878/large.bin | b2sum").await;
    println!("5 MB read in {:?}", began.elapsed());
    let file = bench.dir().join("large.bin");
    std::fs::write(&file, &large).unwrap();
    let outside = std::process::Command::new("sh")
        .args(["-c", "b2sum < $0; tail -c 100 $0 | b2sum"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(sum.out.as_bytes(), outside.stdout, "{}", sum.err);
    let map = "perl -MPOSIX -e 'print 1' && python3 -c 'import mmap; f = open(\"/data/na12878/large.bin\", \"rb\"); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(len(m), m[70000])'";
    println!("{:?}", alice.sh(map).await);

    for command in [
        "echo x > /data/na12878/reads.bam",
        "rm -f /data/na12878/reads.bam",
        "touch /data/na12878/new",
        "mkdir /data/new",
        "chmod 777 /data/na12878/reads.bam",
        "truncate -s 0 /data/na12878/large.bin",
        "cat /data/other/secret.txt",
        "ls /data/other",
    ] {
        let done = alice.sh(command).await;
        assert_ne!(done.end, End::Code(0), "{command}: {done:?}");
    }

    // A second session brings a further dataset, which goes when it does.
    let second = SessionId::from_name("s2").unwrap();
    let more = mount.grant(&second, std::slice::from_ref(&other));
    assert_eq!(alice.sh("cat /data/other/secret.txt").await.out, "secret");
    drop(more);
    let gone = alice.sh("cat /data/other/secret.txt").await;
    assert!(gone.err.contains("Permission denied"), "{gone:?}");

    // The end of the last session takes away what is open and what is cached.
    let holder = "exec 5< /data/na12878/reads.bam; head -c 10 <&5 > /dev/null; echo open; sleep 0.6; \
                  head -c 10 <&5; cat /data/na12878/reads.bam; ls /data/na12878";
    let (process, streams) = alice.begin(holder).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(mount.session_with(&na12878.objects[0].object), Some(first));
    drop(lease);
    let done = crate::bench::finish(process, streams).await;
    assert_eq!(done.out, "open\n", "{done:?}");
    assert_eq!(done.err.matches("Permission denied").count(), 3, "{done:?}");
    assert!(heard.failures.lock().unwrap().is_empty());

    alice.0.stop().await.unwrap();
    mount.close();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*bench.dir().to_string_lossy()), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_survives_one_backend_and_names_the_loss_of_two() {
    let bench = Bench::new(Limits::default());
    let shares = Shares::new(&bench);
    let fasta = std::fs::read(giab("q.fa")).unwrap();
    let reference = shares.deposit("reference", &[("q.fa", fasta), ("r.fa", vec![b'A'; 300_000])]).await;
    let data = bench.dir().join("mnt");
    std::fs::create_dir(&data).unwrap();
    let heard = Arc::new(Heard::default());
    let mount = DataMount::open(&data, &shares.storage, 1 << 20, heard.clone()).unwrap();
    let _lease = mount.grant(&SessionId::from_name("s1").unwrap(), &[reference]);
    let read = |name: &str| {
        let path = data.join("reference").join(name);
        tokio::task::spawn_blocking(move || std::fs::read(path))
    };
    std::fs::remove_dir_all(&shares.folders[0]).unwrap();
    assert_eq!(read("q.fa").await.unwrap().unwrap(), std::fs::read(giab("q.fa")).unwrap());
    std::fs::remove_dir_all(&shares.folders[2]).unwrap();
    let began = Instant::now();
    let error = read("r.fa").await.unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(began.elapsed() < Duration::from_secs(5));
    let failures = heard.failures.lock().unwrap().clone();
    assert_eq!(failures[0].0, SessionId::from_name("s1").ok());
    let faults = heard.faults.lock().unwrap().clone();
    for institution in ["north", "south"] {
        assert!(faults.iter().any(|(session, fault)| session.is_some() && fault.institution == institution));
    }
    mount.close();
}
