//! Tests of the program that measures.

mod smoke;
