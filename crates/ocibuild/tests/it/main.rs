//! Integration tests of the library, one module for each room.

mod dockerfile;
mod ignore;
mod table;
mod words;
