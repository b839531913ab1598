"""Makes a medium with a DICOMDIR from files: make_dicomdir.py TO FILE..."""

import sys

from pydicom.fileset import FileSet

medium = FileSet()
for file in sys.argv[2:]:
    medium.add(file)
medium.write(sys.argv[1])
