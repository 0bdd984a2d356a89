//! Tables of a real PostgreSQL hold each row once, whatever is killed on either side (O1–O6, O10).

mod changes; // The changes of a table as a source (O13–O16).
mod errors; // What cannot work is said at the start, with what to do; what passes is waited for.
mod killed; // The job dies by SIGKILL, the server does, both do: tables equal a model of the input.
mod lineages; // A job on a new log, one that went back, a database that was restored.
mod server; // A server of the test's own, started from the installed binaries.
mod support; // The jobs and their tables.
mod tls; // An encrypted connection, and certificates that are not accepted.
