//! What deliveries of webhooks may take of a worker that serves other queues, too.
//!
//! They wait for receivers outside. Receivers that hang must not keep other jobs from running, and
//! other jobs must not keep deliveries from being sent: so they have at most a quarter of the slots
//! at once, and after some have begun, the next look at the queues asks theirs last. What is beyond
//! their share is not claimed at all. A worker of nothing else gives them everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::order::ServedQueue;
use crate::job::{QueueName, webhook};

/// Their share is one of so many parts, and one slot at least.
const PARTS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Share {
    /// None: nothing is shared here.
    queue: Option<QueueName>,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: AtomicUsize,
    freed: Notify,
    /// Some began since the last look.
    is_next_last: AtomicBool,
}

/// A slot that a delivery has; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Inner>);

impl Share {
    pub(super) fn among(queues: &[ServedQueue]) -> Self {
        let theirs = |queue: &&ServedQueue| queue.name.as_str() == webhook::QUEUE;
        let queue = queues.iter().find(theirs).filter(|_| queues.len() > 1);
        Self {
            queue: queue.map(|queue| queue.name.clone()),
            inner: Arc::default(),
        }
    }

    pub(super) fn is_of(&self, queue: &QueueName) -> bool {
        self.queue.as_ref() == Some(queue)
    }

    /// How many more jobs of this queue may begin beside each other in a worker of so many slots.
    pub(super) fn room(&self, queue: &QueueName, slots: usize) -> usize {
        if !self.is_of(queue) {
            return usize::MAX;
        }
        let most = (slots / PARTS).max(1);
        most.saturating_sub(self.inner.running.load(Ordering::Acquire))
    }

    /// Notes that a job of this queue begins, if it counts.
    pub(super) fn enter(&self, queue: &QueueName) -> Option<Taken> {
        if !self.is_of(queue) {
            return None;
        }
        self.inner.running.fetch_add(1, Ordering::AcqRel);
        self.inner.is_next_last.store(true, Ordering::Release);
        Some(Taken(self.inner.clone()))
    }

    /// Puts their queue behind the others if some of theirs began at the last look.
    pub(super) fn settle_order(&self, order: &mut Vec<&QueueName>) {
        if !self.inner.is_next_last.swap(false, Ordering::AcqRel) {
            return;
        }
        let at = order
            .iter()
            .position(|name| Some(*name) == self.queue.as_ref());
        if let Some(at) = at {
            let last = order.remove(at);
            order.push(last);
        }
    }

    /// Waits until one has ended since this was waited for the last time.
    pub(super) async fn freed(&self) {
        self.inner.freed.notified().await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn queues(texts: &[&str]) -> Vec<ServedQueue> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn deliveries_have_a_quarter_of_the_slots_and_others_have_all() {
        let queues = queues(&[webhook::QUEUE, "default"]);
        let (theirs, other) = (&queues[0].name, &queues[1].name);
        let share = Share::among(&queues);
        for (slots, most) in [(1, 1), (3, 1), (8, 2), (50, 12)] {
            assert_eq!(share.room(theirs, slots), most, "{slots}");
            assert_eq!(share.room(other, slots), usize::MAX);
        }
        let taken = [share.enter(theirs), share.enter(theirs)];
        assert!(share.enter(other).is_none());
        assert_eq!((share.room(theirs, 8), share.room(theirs, 1)), (0, 0));
        assert!(share.freed().now_or_never().is_none());
        drop(taken);
        assert_eq!(share.room(theirs, 8), 2);
        assert!(share.freed().now_or_never().is_some());
        let alone = Share::among(&queues[..1]);
        assert_eq!(alone.room(theirs, 1), usize::MAX);
        assert!(alone.enter(theirs).is_none());
    }

    #[test]
    fn with_one_slot_deliveries_and_others_take_turns() {
        let queues = queues(&["high", webhook::QUEUE, "default", "low"]);
        let share = Share::among(&queues);
        let looked = || {
            let mut order: Vec<&QueueName> = queues.iter().map(|queue| &queue.name).collect();
            share.settle_order(&mut order);
            order.iter().map(|name| name.as_str()).collect::<Vec<_>>()
        };
        let first = ["high", webhook::QUEUE, "default", "low"];
        let last = ["high", "default", "low", webhook::QUEUE];
        assert_eq!(looked(), first);
        drop(share.enter(&queues[1].name));
        assert_eq!(looked(), last);
        assert_eq!(looked(), first);
    }
}
