//! In which order a worker looks at its queues.

use crate::job::QueueName;

/// A queue that a worker serves, and how often it is looked at first.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedQueue {
    pub name: QueueName,
    /// With a weight, the chance to be first is the weight's share; without any, the order of the
    /// list is strict: a later queue is served only when all before it are empty.
    pub weight: Option<u32>,
}

/// Text that names no queue to serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServedQueue {
    #[error(transparent)]
    Name(#[from] crate::job::InvalidQueueName),
    #[error("weight `{0}` must be a number from 1 to 1000")]
    Weight(String),
}

impl std::str::FromStr for ServedQueue {
    type Err = InvalidServedQueue;

    /// `name` or `name=weight`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, weight)) = text.rsplit_once('=') else {
            return Ok(Self {
                name: text.parse()?,
                weight: None,
            });
        };
        match weight.parse() {
            Ok(weight @ 1..=1000) => Ok(Self {
                name: name.parse()?,
                weight: Some(weight),
            }),
            _ => Err(InvalidServedQueue::Weight(weight.to_owned())),
        }
    }
}

/// The order of one round. `random` yields numbers in `0.0..1.0`.
pub(super) fn order(queues: &[ServedQueue], mut random: impl FnMut() -> f64) -> Vec<&QueueName> {
    if queues.iter().all(|queue| queue.weight.is_none()) {
        return queues.iter().map(|queue| &queue.name).collect();
    }
    let mut left: Vec<&ServedQueue> = queues.iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let total: u32 = left.iter().map(|queue| queue.weight.unwrap_or(1)).sum();
        let mut point = random() * f64::from(total);
        let nth = left
            .iter()
            .position(|queue| {
                point -= f64::from(queue.weight.unwrap_or(1));
                point < 0.0
            })
            .unwrap_or(left.len() - 1);
        ordered.push(&left.remove(nth).name);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(texts: &[&str]) -> Vec<ServedQueue> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn without_weights_the_order_is_strict() {
        let queues = queues(&["high", "default", "low"]);
        let names: Vec<&str> = order(&queues, || 0.99).iter().map(|q| q.as_str()).collect();
        assert_eq!(names, ["high", "default", "low"]);
    }

    #[test]
    fn a_weight_is_the_share_of_rounds_in_which_a_queue_is_first() {
        let queues = queues(&["a=9", "b=1"]);
        let rounds = 1000;
        let first_a = (0..rounds)
            .filter(|n| order(&queues, || f64::from(*n) / f64::from(rounds))[0].as_str() == "a")
            .count();
        assert_eq!(first_a, 900);
        assert_eq!(order(&queues, || 0.95).len(), 2);
    }

    #[test]
    fn a_bad_weight_is_refused() {
        for text in ["a=0", "a=x", "a=1001", "a=", "=3"] {
            assert!(text.parse::<ServedQueue>().is_err(), "{text}");
        }
    }
}
