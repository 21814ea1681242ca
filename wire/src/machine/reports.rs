use std::collections::VecDeque;

use super::Violation;
use crate::message::{AgentEvent, Report};

/// The agent's reports that the broker has not yet acknowledged, in order.
///
/// It outlives connections: after a reconnection everything unacknowledged is sent again, so the
/// broker hears every report at least once.
#[derive(Debug)]
pub struct ReportQueue {
    waiting: VecDeque<Report>,
    capacity: usize,
    last: u64,
    sent: u64,
}

/// As many reports wait for the broker as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} reports wait for the broker already; it must record some first")]
pub struct QueueFull(pub usize);

impl ReportQueue {
    /// An empty queue for at most `capacity` unacknowledged reports.
    pub fn new(capacity: usize) -> ReportQueue {
        ReportQueue { waiting: VecDeque::new(), capacity, last: 0, sent: 0 }
    }

    /// Queues an event; its sequence number.
    pub fn push(&mut self, event: AgentEvent) -> Result<u64, QueueFull> {
        if self.waiting.len() >= self.capacity {
            return Err(QueueFull(self.capacity));
        }
        self.last += 1;
        self.waiting.push_back(Report { seq: self.last, event });
        Ok(self.last)
    }

    /// A new connection: nothing was sent on it yet.
    pub fn reconnected(&mut self) {
        self.sent = 0;
    }

    /// The next report to send on this connection; it counts as sent.
    pub fn next_to_send(&mut self) -> Option<Report> {
        let at = self.waiting.partition_point(|report| report.seq <= self.sent);
        let report = self.waiting.get(at)?.clone();
        self.sent = report.seq;
        Some(report)
    }

    /// The broker recorded everything up to `seq`; how many reports that frees.
    pub fn acknowledged(&mut self, seq: u64) -> Result<usize, Violation> {
        if seq > self.sent {
            return Err(Violation::NeverSent { seq, sent: self.sent });
        }
        let done = self.waiting.partition_point(|report| report.seq <= seq);
        self.waiting.drain(..done);
        Ok(done)
    }

    /// How many reports are unacknowledged.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(reason: &str) -> AgentEvent {
        AgentEvent::WorkspaceStopped { workspace: "ws:a".parse().unwrap(), reason: reason.to_owned() }
    }

    #[test]
    fn unacknowledged_reports_are_sent_again_on_the_next_connection() {
        let mut queue = ReportQueue::new(3);
        for reason in ["a", "b", "c"] {
            queue.push(event(reason)).unwrap();
        }
        assert_eq!(queue.push(event("d")), Err(QueueFull(3)));
        assert_eq!(queue.next_to_send().unwrap().seq, 1);
        assert_eq!(queue.next_to_send().unwrap().seq, 2);
        queue.acknowledged(1).unwrap();
        queue.reconnected();
        let again: Vec<u64> = std::iter::from_fn(|| queue.next_to_send()).map(|r| r.seq).collect();
        assert_eq!(again, [2, 3]);
        queue.acknowledged(3).unwrap();
        assert!(queue.is_empty());
        assert_eq!(queue.push(event("d")), Ok(4));
    }

    #[test]
    fn an_acknowledgement_of_the_unsent_is_a_violation() {
        let mut queue = ReportQueue::new(3);
        queue.push(event("a")).unwrap();
        assert_eq!(queue.acknowledged(1), Err(Violation::NeverSent { seq: 1, sent: 0 }));
    }
}
