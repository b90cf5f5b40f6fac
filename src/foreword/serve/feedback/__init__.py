"""What people say of a server's answers: rows that are kept, and answers that wait for a look."""
