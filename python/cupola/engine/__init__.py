"""The engine: requests go in as text or token ids, text comes out; time is kept in C++ below it."""
