echo 1 > one; tar cPf a.tar --transform='s,^,/abs/,' one; tar rPf a.tar --transform='s,^,../../up/,' one; rm one
