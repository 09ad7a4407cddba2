//! Whether two words are the same but for a slip of the finger.

/// One letter changed, added or left out, or two swapped; words of under six letters are too easily
/// others.
pub(super) fn one_error_apart(left: &str, right: &str) -> bool {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().min(right.len()) < 6 || left.len().abs_diff(right.len()) > 1 {
        return false;
    }
    let same_start = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let same_end = left
        .iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let swapped = left.len() == right.len()
        && same_start + same_end + 2 == left.len()
        && left[same_start] == right[same_start + 1]
        && left[same_start + 1] == right[same_start];
    swapped || same_start + same_end + 1 >= left.len().max(right.len())
}
