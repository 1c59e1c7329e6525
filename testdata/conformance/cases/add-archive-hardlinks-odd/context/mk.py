import tarfile,io
t=tarfile.open('a.tar','w')
def f(n,d=b'x',**k):
    i=tarfile.TarInfo(n); i.size=len(d); i.mtime=1000000000
    for a,b in k.items(): setattr(i,a,b)
    t.addfile(i,io.BytesIO(d))
def l(n,to,ty=tarfile.LNKTYPE,**k):
    i=tarfile.TarInfo(n); i.type=ty; i.linkname=to; i.mtime=1000000000
    for a,b in k.items(): setattr(i,a,b)
    t.addfile(i)
f('a'); l('abs','/a'); l('d/l','a'); l('up','./d/../a'); f('modes',mode=0o7644,uid=70000,gid=80000)
l('sl','a',tarfile.SYMTYPE); l('hl2sl','sl'); l('toexists','exists')
t.close()
