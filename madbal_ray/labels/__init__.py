"""Answers and their ledger: who answers, what was asked, what it cost."""
