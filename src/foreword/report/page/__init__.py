"""How a report is drawn: figures by matplotlib, and one HTML file by templates that escape."""
