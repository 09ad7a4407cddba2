//! Sealing secrets that people give, before they are stored.

use super::problem::Problem;
use super::state::State;
use crate::record::sealed_secrets;
use crate::sealed::{Place, SealError};
use crate::secret::Secret;

/// The secret as it is stored. No key is made for it where others have sealed secrets with one that
/// this process does not have.
pub(super) async fn seal(state: &State, place: &Place, secret: &Secret) -> Result<String, Problem> {
    let sealer = &state.services.sealer;
    let internal = |error: SealError| Problem::internal(&error);
    if !sealer.has_key().map_err(internal)?
        && sealed_secrets::are_any(&state.services.record).await?
    {
        return Err(internal(SealError::KeyMissing));
    }
    sealer.seal(place, secret).map_err(internal)
}
