//! Cutting what callers send into script calls of a bounded size.

/// Jobs per script call at most: a script stops the server for everyone while it runs.
pub const BATCH_MAX: usize = 500;
/// Bytes of job text per script call, unless one job alone is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Consecutive parts of `items`, none larger than the bounds, none empty.
pub(super) fn batches<T>(items: &[T], bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::with_capacity(items.len() / BATCH_MAX + 1);
    let (mut first, mut size) = (0, 0);
    for (at, item) in items.iter().enumerate() {
        let item_size = bytes(item);
        let is_full = at - first == BATCH_MAX || size + item_size > BATCH_BYTES_MAX;
        if at > first && is_full {
            parts.push(&items[first..at]);
            (first, size) = (at, 0);
        }
        size += item_size;
    }
    if first < items.len() {
        parts.push(&items[first..]);
    }
    parts
}

/// Positions count from 1, as Lua counts; `None` if the script answered nonsense.
pub(super) fn mark<T: Clone>(
    answers: &mut [T],
    positions: impl IntoIterator<Item = usize>,
    answer: &T,
) -> Option<()> {
    for position in positions {
        *answers.get_mut(position.checked_sub(1)?)? = answer.clone();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_count_and_by_bytes() {
        let sizes = |items: &[usize]| -> Vec<usize> {
            batches(items, |bytes| *bytes)
                .iter()
                .map(|part| part.len())
                .collect()
        };
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&[1; 500]), [500]);
        assert_eq!(sizes(&[1; 1001]), [500, 500, 1]);
        assert_eq!(
            sizes(&[BATCH_BYTES_MAX + 1, 1, BATCH_BYTES_MAX, 1]),
            [1, 1, 1, 1]
        );
        assert_eq!(sizes(&[BATCH_BYTES_MAX / 2; 5]), [2, 2, 1]);
    }

    #[test]
    fn a_position_outside_the_batch_is_noticed() {
        let mut answers = [0, 0];
        assert_eq!(mark(&mut answers, [2], &7), Some(()));
        assert_eq!(answers, [0, 7]);
        assert_eq!(mark(&mut answers, [0], &7), None);
        assert_eq!(mark(&mut answers, [3], &7), None);
    }
}
