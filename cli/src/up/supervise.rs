//! When to start, restart, stop and kill the processes of a node. No I/O: the driver tells what
//! happened and when, and does what it is told.

use std::time::Duration;

/// A process of the node, in the order they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Holds the CA keys.
    Signer,
    /// The front door.
    Broker,
    /// Runs the workspaces.
    Agent,
}

impl Room {
    /// Every room, in starting order; stopping goes the other way round.
    pub const ALL: [Room; 3] = [Room::Signer, Room::Broker, Room::Agent];

    /// Its folder under the node's.
    pub fn name(self) -> &'static str {
        match self {
            Room::Signer => "signer",
            Room::Broker => "broker",
            Room::Agent => "agent",
        }
    }

    fn at(self) -> usize {
        self as usize
    }
}

/// Durations of the supervision.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a process may take to say that it is ready.
    pub ready: Duration,
    /// How long it may take to end after SIGTERM.
    pub stop: Duration,
    /// The wait before the first restart; doubled for each one that follows.
    pub backoff: Duration,
    /// The longest wait before a restart.
    pub backoff_max: Duration,
    /// After running this long, a process's past failures are forgotten.
    pub steady: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            ready: Duration::from_secs(30),
            stop: Duration::from_secs(10),
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            steady: Duration::from_secs(60),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The process runs (it is not ready yet).
    Spawned(Room),
    /// It could not be prepared or started.
    NotSpawned(Room),
    /// It said that it is ready.
    Ready(Room),
    /// It ended.
    Exited(Room),
    /// Somebody wants the node to stop.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start it, after preparing its folder; answer with `Spawned` or `NotSpawned`.
    Spawn(Room),
    /// Ask it to end.
    Terminate(Room),
    /// End it.
    Kill(Room),
    /// Tell: it was not ready in time.
    SayLate(Room),
    /// Tell: it is started again after this long.
    SayAgain(Room, Duration),
    /// Tell: all are ready for the first time.
    SayServing,
    /// All is over.
    Finish(Ending),
}

/// How the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As asked.
    Stopped,
    /// This process failed before it had ever been ready.
    Failed(Room),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for those before it (first start only).
    Waiting,
    /// Being prepared; nothing to signal yet.
    Spawning,
    Starting {
        deadline: Duration,
    },
    Ready {
        since: Duration,
    },
    /// Died; to be started at `at`.
    Resting {
        at: Duration,
    },
    Terminating {
        deadline: Duration,
    },
    Killed,
    Gone,
}

/// The supervision of one node.
#[derive(Debug)]
pub struct Supervisor {
    timing: Timing,
    states: [State; 3],
    failures: [u32; 3],
    served: bool,
    ending: Option<Ending>,
}

impl Supervisor {
    /// A node of which nothing runs yet, and the first things to do.
    pub fn start(timing: Timing) -> (Supervisor, Vec<Action>) {
        let supervisor = Supervisor {
            timing,
            states: [State::Spawning, State::Waiting, State::Waiting],
            failures: [0; 3],
            served: false,
            ending: None,
        };
        (supervisor, vec![Action::Spawn(Room::Signer)])
    }

    /// Takes in what happened at `now` (a monotonic time since any fixed moment).
    pub fn handle(&mut self, now: Duration, input: &Input) -> Vec<Action> {
        match *input {
            Input::Spawned(room) => self.spawned(now, room),
            Input::NotSpawned(room) | Input::Exited(room) => self.exited(now, room),
            Input::Ready(room) => self.ready(now, room),
            Input::Stop => self.stop(now, Ending::Stopped),
        }
    }

    /// When [`Supervisor::handle_timeout`] wants to be called next.
    pub fn timeout(&self) -> Option<Duration> {
        let of = |state: &State| match *state {
            State::Starting { deadline } | State::Terminating { deadline } => Some(deadline),
            State::Resting { at } => Some(at),
            State::Waiting | State::Spawning | State::Ready { .. } | State::Killed | State::Gone => None,
        };
        self.states.iter().filter_map(of).min()
    }

    /// Does what has become due at `now`.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for room in Room::ALL {
            match self.states[room.at()] {
                State::Starting { deadline } if deadline <= now => {
                    actions.push(Action::SayLate(room));
                    if self.served {
                        // It hangs: its end brings the restart.
                        self.states[room.at()] = State::Killed;
                        actions.push(Action::Kill(room));
                    } else {
                        actions.extend(self.stop(now, Ending::Failed(room)));
                    }
                }
                State::Resting { at } if at <= now => {
                    self.states[room.at()] = State::Spawning;
                    actions.push(Action::Spawn(room));
                }
                State::Terminating { deadline } if deadline <= now => {
                    self.states[room.at()] = State::Killed;
                    actions.push(Action::Kill(room));
                }
                _ => {}
            }
        }
        actions
    }

    /// Whether the node is on its way down.
    pub fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    fn spawned(&mut self, now: Duration, room: Room) -> Vec<Action> {
        if self.ending.is_some() {
            // The stop came while it was being prepared.
            return self.terminate(now, room);
        }
        self.states[room.at()] = State::Starting { deadline: now + self.timing.ready };
        Vec::new()
    }

    fn ready(&mut self, now: Duration, room: Room) -> Vec<Action> {
        if !matches!(self.states[room.at()], State::Starting { .. }) {
            return Vec::new();
        }
        self.states[room.at()] = State::Ready { since: now };
        if self.served {
            return Vec::new();
        }
        if let Some(next) = Room::ALL.into_iter().find(|r| self.states[r.at()] == State::Waiting) {
            self.states[next.at()] = State::Spawning;
            return vec![Action::Spawn(next)];
        }
        if self.states.iter().all(|s| matches!(s, State::Ready { .. })) {
            self.served = true;
            return vec![Action::SayServing];
        }
        Vec::new()
    }

    fn exited(&mut self, now: Duration, room: Room) -> Vec<Action> {
        let before = self.states[room.at()];
        if self.ending.is_some() {
            self.states[room.at()] = State::Gone;
            return self.stop_next(now);
        }
        let was_ready = matches!(before, State::Ready { .. });
        if !self.served && !was_ready {
            // A process that cannot start the first time has a reason that waiting does not remove.
            self.states[room.at()] = State::Gone;
            return self.stop(now, Ending::Failed(room));
        }
        if matches!(before, State::Ready { since } if now.saturating_sub(since) >= self.timing.steady) {
            self.failures[room.at()] = 0;
        }
        let doubled = self.timing.backoff.saturating_mul(1 << self.failures[room.at()].min(16));
        let wait = doubled.min(self.timing.backoff_max);
        self.failures[room.at()] += 1;
        self.states[room.at()] = State::Resting { at: now + wait };
        vec![Action::SayAgain(room, wait)]
    }

    fn stop(&mut self, now: Duration, ending: Ending) -> Vec<Action> {
        if self.ending.is_some() {
            return Vec::new();
        }
        self.ending = Some(ending);
        for state in &mut self.states {
            if matches!(state, State::Waiting | State::Resting { .. }) {
                *state = State::Gone;
            }
        }
        self.stop_next(now)
    }

    /// Ends one process after the other: the agent reports its last words to the broker, the broker
    /// needs the signer for nothing more.
    fn stop_next(&mut self, now: Duration) -> Vec<Action> {
        for room in Room::ALL.into_iter().rev() {
            match self.states[room.at()] {
                State::Gone => {}
                State::Starting { .. } | State::Ready { .. } => return self.terminate(now, room),
                // Its end, or its start, will be told.
                State::Terminating { .. } | State::Killed | State::Spawning => return Vec::new(),
                State::Waiting | State::Resting { .. } => self.states[room.at()] = State::Gone,
            }
        }
        self.ending.map(Action::Finish).into_iter().collect()
    }

    fn terminate(&mut self, now: Duration, room: Room) -> Vec<Action> {
        self.states[room.at()] = State::Terminating { deadline: now + self.timing.stop };
        vec![Action::Terminate(room)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::*;
    use Room::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn serving() -> Supervisor {
        let (mut node, first) = Supervisor::start(Timing::default());
        assert_eq!(first, [Spawn(Signer)]);
        assert_eq!(node.handle(s(0), &Input::Spawned(Signer)), []);
        assert_eq!(node.handle(s(1), &Input::Ready(Signer)), [Spawn(Broker)]);
        assert_eq!(node.handle(s(1), &Input::Spawned(Broker)), []);
        assert_eq!(node.handle(s(2), &Input::Ready(Broker)), [Spawn(Agent)]);
        assert_eq!(node.handle(s(2), &Input::Spawned(Agent)), []);
        assert_eq!(node.handle(s(3), &Input::Ready(Agent)), [SayServing]);
        assert_eq!(node.timeout(), None);
        node
    }

    #[test]
    fn stopping_goes_from_the_agent_to_the_signer() {
        let mut node = serving();
        assert_eq!(node.handle(s(10), &Input::Stop), [Terminate(Agent)]);
        assert_eq!(node.handle(s(10), &Input::Stop), []);
        assert_eq!(node.handle(s(11), &Input::Exited(Agent)), [Terminate(Broker)]);
        assert_eq!(node.handle(s(12), &Input::Exited(Broker)), [Terminate(Signer)]);
        assert_eq!(node.handle(s(12), &Input::Exited(Signer)), [Finish(Ending::Stopped)]);
    }

    #[test]
    fn who_does_not_stop_is_killed() {
        let mut node = serving();
        node.handle(s(10), &Input::Stop);
        assert_eq!(node.timeout(), Some(s(20)));
        assert_eq!(node.handle_timeout(s(19)), []);
        assert_eq!(node.handle_timeout(s(20)), [Kill(Agent)]);
        assert_eq!(node.timeout(), None);
        assert_eq!(node.handle(s(20), &Input::Exited(Agent)), [Terminate(Broker)]);
    }

    #[test]
    fn restarts_wait_longer_each_time_and_forget_after_a_steady_minute() {
        let mut node = serving();
        let mut now = s(10);
        for wait in [200, 400, 800, 1600].map(Duration::from_millis) {
            assert_eq!(node.handle(now, &Input::Exited(Broker)), [SayAgain(Broker, wait)]);
            now += wait;
            assert_eq!(node.timeout(), Some(now));
            assert_eq!(node.handle_timeout(now), [Spawn(Broker)]);
            node.handle(now, &Input::Spawned(Broker));
            assert_eq!(node.handle(now, &Input::Ready(Broker)), []);
        }
        for _ in 0..40 {
            node.handle(now, &Input::Exited(Broker));
            let due = node.timeout().unwrap();
            assert!(due - now <= s(30));
            now = due;
            node.handle_timeout(now);
            node.handle(now, &Input::NotSpawned(Broker));
            now = node.timeout().unwrap();
            node.handle_timeout(now);
            node.handle(now, &Input::Spawned(Broker));
            node.handle(now, &Input::Ready(Broker));
        }
        let again = node.handle(now + s(60), &Input::Exited(Broker));
        assert_eq!(again, [SayAgain(Broker, Duration::from_millis(200))]);
    }

    #[test]
    fn a_process_that_never_gets_ready_fails_the_first_start() {
        let (mut node, _) = Supervisor::start(Timing::default());
        node.handle(s(0), &Input::Spawned(Signer));
        node.handle(s(1), &Input::Ready(Signer));
        node.handle(s(1), &Input::Spawned(Broker));
        assert_eq!(node.timeout(), Some(s(31)));
        assert_eq!(node.handle_timeout(s(31)), [SayLate(Broker), Terminate(Broker)]);
        assert_eq!(node.handle(s(32), &Input::Ready(Broker)), []);
        assert_eq!(node.handle(s(32), &Input::Exited(Broker)), [Terminate(Signer)]);
        assert_eq!(node.handle(s(32), &Input::Exited(Signer)), [Finish(Ending::Failed(Broker))]);
    }

    #[test]
    fn a_process_that_dies_at_once_fails_the_first_start() {
        let (mut node, _) = Supervisor::start(Timing::default());
        assert_eq!(node.handle(s(0), &Input::NotSpawned(Signer)), [Finish(Ending::Failed(Signer))]);
    }

    #[test]
    fn an_early_death_after_being_ready_is_no_failed_start() {
        let (mut node, _) = Supervisor::start(Timing::default());
        node.handle(s(0), &Input::Spawned(Signer));
        node.handle(s(1), &Input::Ready(Signer));
        assert_eq!(node.handle(s(1), &Input::Exited(Signer)), [SayAgain(Signer, Duration::from_millis(200))]);
        node.handle(s(2), &Input::Spawned(Broker));
        assert_eq!(node.handle_timeout(s(2)), [Spawn(Signer)]);
        node.handle(s(2), &Input::Spawned(Signer));
        assert_eq!(node.handle(s(3), &Input::Ready(Broker)), [Spawn(Agent)]);
        node.handle(s(3), &Input::Spawned(Agent));
        assert_eq!(node.handle(s(4), &Input::Ready(Agent)), []);
        assert_eq!(node.handle(s(4), &Input::Ready(Signer)), [SayServing]);
    }

    #[test]
    fn one_that_hangs_at_a_restart_is_killed_and_started_again() {
        let mut node = serving();
        node.handle(s(10), &Input::Exited(Agent));
        node.handle_timeout(s(11));
        node.handle(s(11), &Input::Spawned(Agent));
        assert_eq!(node.handle_timeout(s(41)), [SayLate(Agent), Kill(Agent)]);
        assert_eq!(node.handle(s(41), &Input::Exited(Agent)), [SayAgain(Agent, Duration::from_millis(400))]);
    }

    #[test]
    fn a_stop_while_something_is_being_prepared_waits_for_it() {
        let mut node = serving();
        node.handle(s(10), &Input::Exited(Agent));
        assert_eq!(node.handle_timeout(s(11)), [Spawn(Agent)]);
        assert_eq!(node.handle(s(11), &Input::Stop), []);
        assert_eq!(node.handle(s(11), &Input::Spawned(Agent)), [Terminate(Agent)]);
        assert_eq!(node.handle(s(12), &Input::Exited(Agent)), [Terminate(Broker)]);
    }

    #[test]
    fn a_stop_while_one_rests_does_not_start_it() {
        let mut node = serving();
        node.handle(s(10), &Input::Exited(Agent));
        assert_eq!(node.handle(s(10), &Input::Stop), [Terminate(Broker)]);
        assert_eq!(node.handle_timeout(s(12)), []);
    }
}
