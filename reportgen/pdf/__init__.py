"""PDF files of HTML pages for paper: laid out by WeasyPrint in processes, joined with pikepdf.

Nothing of a report is imported here: each layout is a process of its own and must start fast.
"""
