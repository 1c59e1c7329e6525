ln d/a d/b; mkdir d/s; ln d/a d/s/c
