//! Blocks of running sequences: a beginning that is kept is not computed again, and when blocks run out the newest of
//! the least urgent sequences goes back to the queue. Never touches the blocks of a plan in flight.

use std::cmp::Reverse;

use super::plan::Admitted;
use super::sequence::Sequence;
use super::{RequestId, Scheduler};

impl Scheduler {
    /// Lets requests in, strictly in the queue's order: a large one at the head waits for blocks, and smaller ones behind
    /// it do not overtake. A block is left over for each running sequence that may still grow, so that who comes in
    /// pushes nobody out at once.
    pub(super) fn admit(&mut self) -> Vec<Admitted> {
        let block_tokens = self.limits.block_tokens;
        let mut admitted = Vec::new();
        while self.running.len() < self.limits.running {
            let Some((index, head)) = self.queue.next().and_then(|index| Some((index, self.queue.get_mut(index)?)))
            else {
                break;
            };
            head.find_beginning(&mut self.blocks, block_tokens as usize);
            let missing = head.known().div_ceil(block_tokens) as usize - head.blocks.len();
            let grows = |sequence: &&Sequence| sequence.blocks.len() < sequence.most_blocks(block_tokens);
            if missing + self.running.values().filter(grows).count() > self.blocks.available() {
                head.let_go(&mut self.blocks);
                break;
            }
            let mut sequence = self.queue.begin(index);
            let taken = (0..missing).map_while(|_| self.blocks.take());
            sequence.blocks.extend(taken);
            sequence.last_step = self.step;
            if !std::mem::replace(&mut sequence.began, true) {
                admitted.push(Admitted { id: sequence.id(), cached: sequence.computed });
            }
            self.running.insert(sequence.id(), sequence);
        }
        admitted
    }

    /// A block for every token that is known by now. The most urgent and oldest sequence gets its own first; whoever is
    /// put back to the queue for it is the least urgent and newest. Where those that are less urgent or newer are all in
    /// flight, it waits for their commit instead.
    pub(super) fn grow(&mut self) -> Vec<RequestId> {
        let seniority = |sequence: &Sequence| (Reverse(sequence.admission.priority), sequence.arrival);
        let mut order: Vec<_> = self.running.values().map(|sequence| (seniority(sequence), sequence.id())).collect();
        order.sort_unstable();
        let mut preempted = Vec::new();
        let mut next = 0;
        while let Some(&(_, id)) = order.get(next) {
            let Some(sequence) = self.running.get_mut(&id) else { break };
            if sequence.in_flight || sequence.has_room(self.limits.block_tokens) {
                next += 1;
            } else if let Some(block) = self.blocks.take() {
                sequence.blocks.push(block);
            } else {
                let junior = order[next + 1..].iter().rposition(|(_, id)| !self.is_in_flight(*id));
                if junior.is_none() && next + 1 < order.len() {
                    break;
                }
                let (_, victim) = order.remove(next + junior.map_or(0, |index| index + 1));
                self.put_back(victim);
                preempted.push(victim);
            }
        }
        preempted
    }

    fn is_in_flight(&self, id: RequestId) -> bool {
        self.running.get(&id).is_some_and(|sequence| sequence.in_flight)
    }

    fn put_back(&mut self, id: RequestId) {
        let Some(mut victim) = self.running.remove(&id) else { return };
        victim.let_go(&mut self.blocks);
        self.queue.push(victim);
    }

    /// Drops a running request; whether there was one.
    pub(super) fn release(&mut self, id: RequestId) -> bool {
        let Some(mut sequence) = self.running.remove(&id) else { return false };
        sequence.let_go(&mut self.blocks);
        self.queue.close(&sequence.tenant);
        true
    }
}
