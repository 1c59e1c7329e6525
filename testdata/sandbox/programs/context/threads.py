import multiprocessing, os, subprocess, threading

totals = []
lock = threading.Lock()

def work(number):
    folder = f"/threads/{number}"
    os.makedirs(folder)
    for name in range(50):
        with open(f"{folder}/{name}", "w") as file:
            file.write(str(name))
    os.rename(folder, folder + ".done")
    ran = subprocess.run(["/bin/echo", str(number)], capture_output=True, text=True)
    with lock:
        totals.append(int(ran.stdout))

def square(number):
    return number * number

threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(totals), len(os.listdir("/threads")))
with multiprocessing.Pool(4) as pool:
    print(sum(pool.map(square, range(100))))
