# Text to HTML: the first line is the title, empty lines separate paragraphs.
NR == 1 { print "<!doctype html><title>" $0 "</title><h1>" $0 "</h1>"; next }
/^$/ { if (open) print "</p>"; open = 0; next }
{ if (!open) print "<p>"; open = 1; print }
END { if (open) print "</p>" }
