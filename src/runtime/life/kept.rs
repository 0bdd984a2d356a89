//! `Kept`: the job's two transactional ids. A process takes them when it begins, which fences whoever held them (I4), and goes
//! on with them whenever the job starts again. To fence again then would be to fence an instance that has taken over meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::log_handle::Log;
use super::start::Settings;
use crate::client::{ClientError, TransactionalWriter, Transport, wait};
use crate::protocol::ErrorKind;
use crate::runtime::contract::error::JobError;
use crate::runtime::task::cycle::WRITERS_COUNT;
use crate::types::{TopicName, TransactionalId};

/// A job's transactional writers, as the process's last incarnation left them; none before the first one.
pub(crate) type Kept = Option<[TransactionalWriter; WRITERS_COUNT]>;

/// The writers of the next incarnation.
pub(super) fn take_writers(
    kept: &mut Kept,
    transport: &Arc<dyn Transport>,
    name: &str,
    settings: &Settings,
) -> Result<[TransactionalWriter; WRITERS_COUNT], JobError> {
    let (identity, timeout) = (identity(name, settings)?, settings.transaction_timeout);
    let writers = match &*kept {
        Some(kept) => resume_writers(kept, transport, name, timeout)?,
        None => init_writers(transport, &identity, timeout)?,
    };
    *kept = Some(writers.clone());
    Ok(writers)
}

/// The name that the job's state and transactions are known by: its own, with that of the instance if there are several.
/// `@` is in no job's name, so no two identities meet.
pub(super) fn identity(name: &str, settings: &Settings) -> Result<String, JobError> {
    // The name becomes part of topics' and folders' names; so does an instance's.
    TopicName::new(name)?;
    match &settings.scale_out {
        Some(scale_out) => {
            TopicName::new(&scale_out.instance)?;
            Ok(format!("{name}@{}", scale_out.instance))
        }
        None => Ok(name.to_owned()),
    }
}

/// Fences whoever held the ids before.
pub(super) fn init_writers(
    transport: &Arc<dyn Transport>,
    name: &str,
    timeout: Duration,
) -> Result<[TransactionalWriter; WRITERS_COUNT], JobError> {
    let init = |number: usize| {
        let id = TransactionalId::new(&format!("{name}-{number}"))?;
        init_writer(transport, id, timeout)
    };
    Ok([init(0)?, init(1)?])
}

fn init_writer(
    transport: &Arc<dyn Transport>,
    id: TransactionalId,
    timeout: Duration,
) -> Result<TransactionalWriter, JobError> {
    let init = TransactionalWriter::init(Arc::clone(transport), id, timeout);
    Ok(wait(init)?)
}

/// I4: goes on with what the process holds. Whoever fences it meanwhile is not fenced in turn.
fn resume_writers(
    kept: &[TransactionalWriter; WRITERS_COUNT],
    transport: &Arc<dyn Transport>,
    name: &str,
    timeout: Duration,
) -> Result<[TransactionalWriter; WRITERS_COUNT], JobError> {
    let resume = |writer: &TransactionalWriter| {
        let resumed = wait(writer.resume()).map_err(|e| of_a_writer(name, e))?;
        match resumed {
            Some(writer) => Ok(writer),
            None => init_writer(transport, writer.transactional_id().clone(), timeout),
        }
    };
    Ok([resume(&kept[0])?, resume(&kept[1])?])
}

/// I4: whether the ids that a process holds are still its own; `false` if the log does not say now.
///
/// # Errors
/// [`JobError::Fenced`] if somebody has taken one over.
pub(crate) fn are_still_ours(kept: &Kept, name: &str) -> Result<bool, JobError> {
    for writer in kept.iter().flatten() {
        match wait(writer.resume()) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Retriable => return Ok(false),
            Err(e) => return Err(of_a_writer(name, e)),
        }
    }
    Ok(true)
}

/// Whoever took over from a writer took over the job.
pub(super) fn of_a_writer(job: &str, error: ClientError) -> JobError {
    match error.kind() {
        ErrorKind::Fenced => JobError::Fenced {
            job: job.to_owned(),
            why: error.to_string(),
        },
        _ => error.into(),
    }
}

/// C30: a process that ran the job alone, before it was spread, knows nothing of the others, and the group does not refuse
/// positions that come without a member. Its transactional ids are other ones than the instances', and are taken from it here.
pub(crate) fn fence_the_job_alone(
    log: &Log,
    name: &str,
    settings: &Settings,
) -> Result<(), JobError> {
    TopicName::new(name)?;
    init_writers(&log.transport(), name, settings.transaction_timeout).map(drop)
}
