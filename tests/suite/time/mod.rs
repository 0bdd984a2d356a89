//! Event time and windows: the committed output is a function of the input alone, whatever runs it.

mod aligned; // Sources that wait for each other.
mod all_joins; // All kinds of joins of streams in one job, killed and scaled out on both logs.
mod as_of; // Joins of records with the version that was valid at their time, against the list of all versions.
mod by_count; // Windows of a number of records, against a list of them.
mod calendar; // Windows that follow the calendar of a zone.
mod calls; // Steps that ask the world outside, under failures, kills and hand-overs.
mod cogroups; // Any number of inputs in one aggregate, against totals by hand.
mod dedupes; // Records that are there more than once, against a list of all that passed.
mod early; // Windows that give results early, against those that give them when they close.
mod everything; // A job with all of these, and all that it gives by the definition.
mod everything_kafka; // The same in two processes that share it on a real Kafka, and are killed.
mod failpoints; // The job with everything in a process that is killed at every failpoint.
mod functions; // What is computed in windows, against the same from a list of all values.
mod hot_keys; // Joins of a key that has nearly all records.
mod joins; // Joins of two streams within an interval, against nested loops over all of both.
pub(crate) mod killed; // A process with windows, killed at any moment and at every failpoint.
mod killed_kinds; // The same of the other kinds of windows, early results and state that expires.
mod late; // Late records say why; what windows leave out is counted.
mod many_joins; // Ten thousand random cases for each kind of join of streams.
mod model; // Windows of random kinds over random input, against the definition; workers, restarts, late records.
mod null_values; // Records without a value in joins of streams, which are values like any other.
mod order; // The order of records of one key and one time.
pub(crate) mod power_loss; // Windows and timers on a disk that loses power, with the state lost or older than the log.
mod queries; // Questions about open windows.
mod replay; // The same output whatever runs a job: random topologies, workers, batches, kills, logs.
mod restore_troubles; // Restores of jobs that are scaled out under kills, on disks that lose power, in parts on Kafka.
mod rows; // The rows T and W of the catalogue of faults that other systems had.
mod savepoint_troubles; // Savepoints that are taken and restored by processes that are killed, on full disks, across file systems.
mod savepoints; // A job goes back to a savepoint, on its own log or on another one that has the input.
pub(crate) mod scaled; // Windows and timers in jobs that are scaled out, on the embedded log.
pub(crate) mod scaled_kafka; // The same in processes that are killed, on a real Kafka.
mod scaled_kinds; // Windows of all kinds, early results, lifetimes and two inputs, scaled out on both logs.
mod scaled_savepoints; // Savepoints of jobs that are scaled out, for other numbers of instances, on both logs.
mod sessions; // Sessions over random input, and the rows W that are about them.
mod sliding; // Windows that slide, against the definition and against a run by hand.
pub(crate) mod support; // Clicks, how they are fed, and the windows that they belong to.
mod timers; // Timers of event time and of the wall clock, and records in the order of their times.
mod ttl; // State with a lifetime, against a run by hand.
mod two_inputs; // Operators with two inputs, against nested loops over all of both.
mod updates; // Windows that give a result with each change, against those that give it when they close.
mod window_joins; // Joins of two streams in windows, against nested loops over all of both.
