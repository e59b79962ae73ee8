"""Parts of the lab's HTML reports: text blocks, tables and plots.

blocks: pages, sections, text and tables; figures: plots, images and galleries. Every function returns HTML as text.
Text arguments are escaped; parameters named ``html`` are not.
"""
