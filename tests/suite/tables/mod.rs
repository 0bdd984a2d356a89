//! Tables: what is made of them is what a plain program makes of the last values, whatever runs the job.

mod killed; // A job of tables, killed at every failpoint.
mod model; // Joins, groups and filters of tables over random changes, against maps.
mod rows; // The rows J of the catalogue that are about tables.
mod scaled; // The same in a job that is scaled out.
mod support; // Changes, how they are fed, and the job that is tested.
