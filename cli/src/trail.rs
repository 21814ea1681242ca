use crate::Surroundings;
use crate::args::Audit;
use crate::fault::Fault;

/// `sekisho audit`
pub async fn audit(_around: &Surroundings, _command: &Audit) -> Result<(), Fault> {
    Ok(())
}
