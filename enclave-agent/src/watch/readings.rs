//! Who reads which genome file, and how much of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::observed::{FileRead, Observation, ReadPhase};
use model::{DatasetId, ObjectId, SessionId};

use super::processes::Actor;

/// How long a file that nobody has open any more may be opened again before its reading has ended.
const LINGER: Duration = Duration::from_secs(5);
/// How often a reading that goes on is told again.
const AGAIN: Duration = Duration::from_secs(300);
/// Readings at once that are told; further ones are only counted.
const READINGS: usize = 1024;

/// A file that is opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Opened {
    /// In which session, if that could be told.
    pub session: Option<SessionId>,
    /// The program that opens it, if that could be told.
    pub program: Option<String>,
    /// What is stored.
    pub object: ObjectId,
    /// Its dataset.
    pub dataset: DatasetId,
    /// Its name there.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

#[derive(Debug)]
struct Reading {
    handles: usize,
    by: Option<Actor>,
    bytes: u64,
    reads: u64,
    told: Option<Instant>,
    idle: Instant,
}

/// The readings of one workspace.
#[derive(Debug, Default)]
pub struct Readings {
    last: u64,
    handles: HashMap<u64, Opened>,
    readings: HashMap<Opened, Reading>,
    others: u64,
}

impl Readings {
    /// Takes note of a file that is opened; the handle to name it by.
    pub fn open(&mut self, what: Opened, by: Option<Actor>, now: Instant) -> u64 {
        self.last += 1;
        if !self.readings.contains_key(&what) && self.readings.len() >= READINGS {
            self.others += 1;
            return self.last;
        }
        let fresh = || Reading { handles: 0, by, bytes: 0, reads: 0, told: None, idle: now };
        self.readings.entry(what.clone()).or_insert_with(fresh).handles += 1;
        self.handles.insert(self.last, what);
        self.last
    }

    /// Counts bytes that were handed out.
    pub fn read(&mut self, handle: u64, bytes: u64) {
        if let Some(reading) = self.handles.get(&handle).and_then(|what| self.readings.get_mut(what)) {
            reading.bytes += bytes;
            reading.reads += 1;
        }
    }

    /// The handle is gone.
    pub fn close(&mut self, handle: u64, now: Instant) {
        if let Some(reading) = self.handles.remove(&handle).and_then(|what| self.readings.get_mut(&what)) {
            reading.handles = reading.handles.saturating_sub(1);
            reading.idle = now;
        }
    }

    /// What is to be told now: beginnings, ends, and what has gone on for long.
    pub fn due(&mut self, now: Instant) -> Vec<(Option<SessionId>, Observation)> {
        let mut told = Vec::new();
        self.readings.retain(|what, reading| {
            match reading.told {
                None => told.push(observation(what, reading, ReadPhase::Opened)),
                Some(at) if now.duration_since(at) >= AGAIN && reading.handles > 0 => {
                    told.push(observation(what, reading, ReadPhase::Continued));
                }
                Some(_) if reading.handles == 0 && now.duration_since(reading.idle) >= LINGER => {
                    told.push(observation(what, reading, ReadPhase::Closed));
                    return false;
                }
                Some(_) => return true,
            }
            reading.told = Some(now);
            true
        });
        told
    }

    /// Ends every reading.
    pub fn rest(&mut self) -> Vec<(Option<SessionId>, Observation)> {
        self.handles.clear();
        let mut told = Vec::new();
        for (what, reading) in self.readings.drain() {
            if reading.told.is_none() {
                told.push(observation(&what, &reading, ReadPhase::Opened));
            }
            told.push(observation(&what, &reading, ReadPhase::Closed));
        }
        told
    }

    /// How many openings were only counted since this was last asked.
    pub fn take_others(&mut self) -> u64 {
        std::mem::take(&mut self.others)
    }
}

fn observation(what: &Opened, reading: &Reading, phase: ReadPhase) -> (Option<SessionId>, Observation) {
    let Opened { session, program: _, object, dataset, name, size } = what.clone();
    let (bytes, reads) = if phase == ReadPhase::Opened { (0, 0) } else { (reading.bytes, reading.reads) };
    let (pid, program) = reading.by.clone().map(|by| (by.pid, by.program)).unzip();
    let what = FileRead { object, dataset, name, size, phase, bytes, reads, pid, program: program.flatten() };
    (session, Observation::FileRead(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: usize) -> Opened {
        Opened {
            session: None,
            program: None,
            object: ObjectId::from_name(&format!("o{number}")).unwrap(),
            dataset: DatasetId::from_name("d").unwrap(),
            name: "reads.bam".to_owned(),
            size: 10,
        }
    }

    fn phases(told: Vec<(Option<SessionId>, Observation)>) -> Vec<(ReadPhase, u64, u64)> {
        let phase = |(_, what)| match what {
            Observation::FileRead(what) => Some((what.phase, what.bytes, what.reads)),
            _ => None,
        };
        told.into_iter().filter_map(phase).collect()
    }

    #[test]
    fn a_file_that_is_opened_again_and_again_is_one_reading() {
        let (mut readings, start) = (Readings::default(), Instant::now());
        let mut told = Vec::new();
        let mut now = start;
        for _ in 0..1000 {
            let handle = readings.open(file(1), None, now);
            readings.read(handle, 7);
            readings.close(handle, now);
            told.extend(phases(readings.due(now)));
            now += Duration::from_millis(10);
        }
        assert_eq!(told, [(ReadPhase::Opened, 0, 0)]);
        assert_eq!(phases(readings.due(now + LINGER)), [(ReadPhase::Closed, 7000, 1000)]);
        assert!(readings.readings.is_empty() && readings.handles.is_empty());
    }

    #[test]
    fn a_long_reading_is_told_now_and_then() {
        let (mut readings, start) = (Readings::default(), Instant::now());
        let handle = readings.open(file(1), None, start);
        readings.due(start);
        readings.read(handle, 5);
        assert!(readings.due(start + AGAIN / 2).is_empty());
        assert_eq!(phases(readings.due(start + AGAIN)), [(ReadPhase::Continued, 5, 1)]);
        assert_eq!(phases(readings.rest()), [(ReadPhase::Closed, 5, 1)]);
    }

    #[test]
    fn too_many_are_only_counted() {
        let (mut readings, now) = (Readings::default(), Instant::now());
        for number in 0..READINGS + 10 {
            readings.open(file(number), None, now);
        }
        assert_eq!(readings.due(now).len(), READINGS);
        assert_eq!(readings.take_others(), 10);
    }
}
