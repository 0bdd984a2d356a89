//! Tables: what is made of them is what a plain program makes of the last values, whatever runs the job.

mod broadcast; // Tables that every process has as a whole.
mod broadcast_kafka; // The same in processes that share a job on a real Kafka.
mod cleaned; // Tables whose rows are cleaned by time, and changes that come behind that.
mod foreign; // Joins by foreign key, change by change.
mod itself; // Tables joined with themselves.
mod killed; // A job of tables, killed at every failpoint.
mod model; // Joins, groups and filters of tables over random changes, against maps.
mod power_loss; // A job of tables on a disk that loses power.
mod rows; // The rows J of the catalogue that are about tables.
mod scaled; // The same in a job that is scaled out.
mod scaled_kafka; // The same in processes that share it on a real Kafka.
mod source_changelog; // Tables whose topic is their changelog.
mod source_killed; // The same in a process that is killed while the topic is compacted.
mod support; // Changes, how they are fed, and the job that is tested.
mod top; // The first values of groups, change by change.
mod versioned; // Versions of keys, as of any time of their history.
mod versioned_killed; // The same in processes that are killed, at every failpoint and on a real Kafka.
