//! Checks of a whole run (Q1, Q2, Q10 to Q16).
