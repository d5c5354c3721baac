//! DDR5 behind the controller: what a request costs, never what comes of it (architecture.md §13 MC-31).
