//! The election without its I/O: what was read, when by our own clock, and what to write next.

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::timing::Timing;

/// What to send to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Somebody else leads.
    Nothing,
    /// There is no lease.
    Create(Lease),
    /// The lease is ours to renew or to take; refused by the server unless it is still the one that was read.
    Replace(Lease),
}

/// One candidate's knowledge.
#[derive(Clone, Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    observed: Option<Lease>,
    observed_at: Option<Instant>,
    renewed_at: Option<Instant>,
    must_read: bool,
}

impl Elector {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, observed: None, observed_at: None, renewed_at: None, must_read: true }
    }

    /// True while this candidate may act: it holds the lease and has renewed it recently enough.
    #[must_use]
    pub fn leads(&self, now: Instant) -> bool {
        self.holds() && self.renewed_at.is_some_and(|at| now < at + self.timing.renew)
    }

    /// A leader renews on what it wrote last; it need not read first.
    #[must_use]
    pub fn may_skip_reading(&self, now: Instant) -> bool {
        !self.must_read && self.leads(now)
    }

    /// Takes note of the lease as read at `now`. Only a change restarts the clock that expires it.
    pub fn read(&mut self, lease: Option<Lease>, now: Instant) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let changed = lease.as_ref().map(version) != self.observed.as_ref().map(version);
        if changed || self.observed_at.is_none() {
            self.observed_at = Some(now);
        }
        self.observed = lease;
        self.must_read = false;
    }

    /// What to write; `wall` is only shown to humans.
    #[must_use]
    pub fn wish(&self, name: &str, now: Instant, wall: Timestamp) -> Wish {
        let Some(lease) = &self.observed else {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            return Wish::Create(Lease { metadata, spec: Some(self.spec(None, wall)) });
        };
        let fresh = self.observed_at.is_none_or(|at| now < at + self.timing.lease);
        if self.holder().is_some() && !self.holds() && fresh {
            return Wish::Nothing;
        }
        Wish::Replace(Lease { spec: Some(self.spec(lease.spec.as_ref(), wall)), ..lease.clone() })
    }

    /// The server took what was sent at `sent`; the lease counts from then, not from the answer.
    pub fn wrote(&mut self, lease: Lease, sent: Instant) {
        self.observed = Some(lease);
        self.observed_at = Some(sent);
        self.renewed_at = Some(sent);
        self.must_read = false;
    }

    /// The server did not take it, or may not have: read again before the next write.
    pub fn refused(&mut self) {
        self.must_read = true;
    }

    /// The lease given back, if it is held.
    #[must_use]
    pub fn release(&self, wall: Timestamp) -> Option<Lease> {
        let lease = self.observed.clone().filter(|_| self.holds())?;
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..lease.spec.clone().unwrap_or_default()
        };
        Some(Lease { spec: Some(spec), ..lease })
    }

    fn holder(&self) -> Option<&str> {
        let spec = self.observed.as_ref()?.spec.as_ref()?;
        spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    fn holds(&self) -> bool {
        self.holder() == Some(&self.identity)
    }

    fn spec(&self, before: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
        let seconds = self.timing.lease.as_secs_f64().ceil().clamp(1.0, f64::from(i32::MAX)) as i32;
        let before = before.cloned().unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let taken = before.holder_identity.is_some() && !ours;
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: before.acquire_time.filter(|_| ours).or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions.saturating_add(i32::from(taken))),
            preferred_holder: None,
            strategy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pretty_assertions::assert_eq;

    use super::*;

    /// A server with one lease that refuses a PUT on an old version, and two candidates that use it in turn.
    struct Server {
        lease: Option<Lease>,
        version: u32,
        start: Instant,
        now: Instant,
    }

    impl Server {
        fn new() -> Self {
            let start = Instant::now();
            Self { lease: None, version: 0, start, now: start }
        }

        fn after(&mut self, seconds: u64) {
            self.now = self.start + Duration::from_secs(seconds);
        }

        fn put(&mut self, mut lease: Lease) -> Option<Lease> {
            let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            if lease.metadata.resource_version != current {
                return None;
            }
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease.clone());
            Some(lease)
        }

        fn turn(&mut self, elector: &mut Elector) -> bool {
            if !elector.may_skip_reading(self.now) {
                elector.read(self.lease.clone(), self.now);
            }
            self.write(elector);
            elector.leads(self.now)
        }

        fn write(&mut self, elector: &mut Elector) {
            match elector.wish("l", self.now, Timestamp::UNIX_EPOCH) {
                Wish::Nothing => {}
                Wish::Create(lease) | Wish::Replace(lease) => match self.put(lease) {
                    Some(lease) => elector.wrote(lease, self.now),
                    None => elector.refused(),
                },
            }
        }

        fn holder(&self) -> Option<String> {
            self.lease.as_ref()?.spec.as_ref()?.holder_identity.clone()
        }
    }

    fn candidate(name: &str) -> Elector {
        Elector::new(name.into(), Timing::default())
    }

    #[test]
    fn only_the_holder_gives_the_lease_back() {
        let (mut server, mut a, mut b) = (Server::new(), candidate("a"), candidate("b"));
        assert!(server.turn(&mut a) && !server.turn(&mut b));
        assert_eq!(b.release(Timestamp::UNIX_EPOCH), None, "it has seen the other's");
        assert!(a.release(Timestamp::UNIX_EPOCH).is_some());
    }

    #[test]
    fn a_second_candidate_takes_over_only_after_a_whole_lease_without_change() {
        let (mut server, mut a, mut b) = (Server::new(), candidate("a"), candidate("b"));
        assert!(server.turn(&mut a));
        let mut log = Vec::new();
        for second in [1, 2, 4, 6, 15, 17, 20, 21] {
            server.after(second);
            // The first candidate renews until second 4, then falls silent.
            let first = if second <= 4 { server.turn(&mut a) } else { a.leads(server.now) };
            log.push((second, first, server.turn(&mut b)));
        }
        assert_eq!(
            log,
            [
                (1, true, false),
                (2, true, false),
                (4, true, false),
                (6, true, false),
                (15, false, false),
                (17, false, false),
                (20, false, true),
                (21, false, true),
            ]
        );
    }

    #[test]
    fn clocks_of_other_machines_do_not_matter() {
        let (mut server, mut a, mut b) = (Server::new(), candidate("a"), candidate("b"));
        server.turn(&mut a);
        let lease = server.lease.as_mut().unwrap();
        let old = MicroTime("1970-01-01T00:00:00Z".parse().unwrap());
        lease.spec.as_mut().unwrap().renew_time = Some(old);
        server.after(14);
        assert!(!server.turn(&mut b), "a renewTime long past does not expire a lease that was just first seen");
    }

    #[test]
    fn of_two_that_see_an_expired_lease_one_is_refused_by_its_precondition() {
        let (mut server, mut a, mut b, mut c) = (Server::new(), candidate("a"), candidate("b"), candidate("c"));
        server.turn(&mut a);
        for candidate in [&mut b, &mut c] {
            candidate.read(server.lease.clone(), server.now);
        }
        server.after(16);
        for candidate in [&mut b, &mut c] {
            candidate.read(server.lease.clone(), server.now);
        }
        server.write(&mut b);
        server.write(&mut c);
        assert_eq!((b.leads(server.now), c.leads(server.now)), (true, false));
        assert_eq!(server.holder().as_deref(), Some("b"));
        assert_eq!(server.lease.unwrap().spec.unwrap().lease_transitions, Some(1));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (mut server, mut a, mut b) = (Server::new(), candidate("a"), candidate("b"));
        server.turn(&mut a);
        assert!(!server.turn(&mut b));
        let released = a.release(Timestamp::UNIX_EPOCH).unwrap();
        assert!(server.put(released).is_some());
        assert!(server.turn(&mut b));
        assert_eq!(b.release(Timestamp::UNIX_EPOCH).map(|l| l.metadata), server.lease.map(|l| l.metadata));
    }

    #[test]
    fn a_leader_whose_lease_was_deleted_makes_it_again_and_a_deposed_one_stops() {
        let (mut server, mut a, mut b) = (Server::new(), candidate("a"), candidate("b"));
        server.turn(&mut a);
        server.lease = None;
        server.after(2);
        server.turn(&mut a);
        server.after(4);
        assert!(server.turn(&mut a), "refused once, it reads, finds nothing and creates");
        server.lease = None;
        server.after(5);
        assert!(server.turn(&mut b));
        server.after(6);
        server.turn(&mut a);
        server.after(8);
        assert!(!server.turn(&mut a));
        assert_eq!(server.holder().as_deref(), Some("b"));
    }
}
